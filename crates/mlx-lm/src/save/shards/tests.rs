use mlx_core::Dtype;
use proptest::prelude::*;

use super::*;

fn tensors(sizes: &[i32]) -> Vec<TensorLayout> {
    let tensor = |(position, &size): (usize, &i32)| TensorLayout {
        name: format!("t{position}"),
        dtype: Dtype::Uint8,
        shape: vec![size],
    };
    sizes.iter().enumerate().map(tensor).collect()
}

fn check_split(sizes: &[i32], max_bytes: u64, expected: &[usize]) {
    let tensors = tensors(sizes);
    let shards = split(&tensors, max_bytes).expect("sound");
    let lengths: Vec<usize> = shards.iter().map(|shard| shard.tensors.len()).collect();
    assert_eq!(lengths, expected, "{sizes:?} by {max_bytes}");
}

#[test]
fn files_are_filled_up_to_the_limit() {
    check_split(&[3], 10, &[1]);
    check_split(&[6, 4, 1], 10, &[2, 1]);
    check_split(&[6, 5, 5], 10, &[1, 2]);
    check_split(&[40, 1, 41, 0], 8, &[1, 1, 1, 1]);
    check_split(&[0, 0, 9], 8, &[2, 1]);
    check_split(&[1, 1, 0], 0, &[1, 1, 1]);
    check_split(&[0, 0], 0, &[2]);
    check_split(&[1; 9], u64::MAX, &[9]);
}

#[test]
fn names_count_from_one() {
    assert_eq!(shard_name(0, 1), "model.safetensors");
    assert_eq!(shard_name(0, 2), "model-00001-of-00002.safetensors");
    assert_eq!(shard_name(122_999, 123_456), "model-123000-of-123456.safetensors");
}

proptest! {
    #[test]
    fn splitting_is_greedy_and_the_index_has_each_tensor_once(
        sizes in proptest::collection::vec(0..50i32, 1..60),
        max_bytes in 0..120u64,
    ) {
        let tensors = tensors(&sizes);
        let shards = split(&tensors, max_bytes).expect("sound");
        let bytes = |range: Range<usize>| sizes[range].iter().map(|&size| size as u64).sum::<u64>();
        let mut next = 0;
        for (position, shard) in shards.iter().enumerate() {
            let Range { start, end } = shard.tensors;
            prop_assert!(start == next && end > start, "no gap, no overlap, none empty");
            prop_assert!(bytes(start..end) <= max_bytes || end - start == 1
                || bytes(start..end - 1) == 0 && max_bytes == 0, "{start}..{end}");
            // The next tensor would not have fitted.
            prop_assert!(end == sizes.len() || bytes(start..end + 1) > max_bytes);
            prop_assert_eq!(&shard.name, &shard_name(position, shards.len()));
            next = end;
        }
        prop_assert_eq!(next, sizes.len());

        let index = index(&shards, &tensors, 7).expect("sound");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        let map = index["weight_map"].as_object().expect("object");
        prop_assert!(map.keys().is_sorted());
        prop_assert_eq!(map.len(), tensors.len());
        for shard in &shards {
            for tensor in &tensors[shard.tensors.clone()] {
                prop_assert_eq!(map[&tensor.name].as_str(), Some(shard.name.as_str()));
            }
        }
        prop_assert_eq!(index["metadata"]["total_size"].as_u64(), Some(bytes(0..sizes.len())));
        prop_assert_eq!(index["metadata"]["total_parameters"].as_u64(), Some(7));
    }
}
