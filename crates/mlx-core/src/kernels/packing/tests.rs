use super::*;
use crate::array::Array;
use crate::device::Device;
use crate::ops::{self, Packed, quantize};
use crate::{random, with_device};

fn bytes(array: &Array) -> Result<Vec<u8>> {
    array.with_bytes(<[u8]>::to_vec)
}

fn all() -> Vec<Quantization> {
    let affine = [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| {
        [32, 64, 128].map(|group_size| Quantization { group_size, bits, mode: QuantMode::Affine })
    });
    affine.chain(QuantMode::ALL[1..].iter().map(|&mode| Quantization::of(mode))).collect()
}

/// Rows of sizes from tiny to large, with a group of zeros, one of one number, and one of small ones.
fn rows() -> Result<Array> {
    let w = random::normal(&[70, 1280], Dtype::Float32, 0.0, 1.0, Some(&random::key(3)?))?;
    let sizes =
        random::uniform(-16.0f32, 6.0f32, &[70, 10, 1], Dtype::Float32, Some(&random::key(4)?))?;
    let w = (w.reshape([70, 10, 128])? * ops::power(2.0, sizes)?)?.reshape([70, 1280])?;
    let odd = [
        ops::zeros(&[1, 1280], Dtype::Float32)?,
        ops::full(&[1, 1280], -0.7, Dtype::Float32)?,
        ops::full(&[1, 1280], 3e-8, Dtype::Float32)?,
    ];
    ops::concatenate(&[&[w][..], &odd].concat(), 0)
}

#[test]
fn packs_as_mlx_does() -> Result<()> {
    with_device(Device::Cpu, || {
        let floats = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];
        for (from, to) in floats.iter().flat_map(|from| floats.iter().map(move |to| (*from, *to))) {
            let w = rows()?.astype(from)?;
            let rounded = w.astype(to)?;
            for quantization in all() {
                let found =
                    pack_rows(&bytes(&w)?, 1280, [from, to], quantization, ScaleSearch::MinMax)?;
                let expected = quantize(&rounded, quantization)?;
                let what = format!("{quantization}, {from} as {to}");
                let scales = bytes(&expected.scales)?;
                let place = found.scales.iter().zip(&scales).position(|(a, b)| a != b);
                assert_eq!(place.map(|i| (i, found.scales[i], scales[i])), None, "scales: {what}");
                if let Some(biases) = &expected.biases {
                    assert!(found.biases == bytes(biases)?, "biases: {what}");
                }
                assert!(found.weight == bytes(&expected.weight)?, "{what}");
                check_unpacking(&found, &expected, to)?;
            }
        }
        Ok(())
    })
}

fn check_unpacking(packed: &PackedBytes, expected: &Packed, dtype: Dtype) -> Result<()> {
    let quantization = expected.quantization;
    let found = unpack_rows(packed, 1280, dtype, quantization)?;
    let expected = expected.dequantize(dtype)?;
    // One sign of zero is as good as the other.
    let found = Array::from_bytes(&found, expected.shape(), dtype)?;
    assert!(found.array_equal(&expected, true)?.item::<bool>()?, "{quantization}, {dtype}");
    Ok(())
}

#[test]
fn converts_as_mlx_does() -> Result<()> {
    with_device(Device::Cpu, || {
        let floats = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];
        for (from, to) in floats.iter().flat_map(|from| floats.iter().map(move |to| (*from, *to))) {
            let w = rows()?.astype(from)?;
            let found = convert_floats(&bytes(&w)?, [from, to])?;
            assert!(found == bytes(&w.astype(to)?)?, "{from} as {to}");
            // Tensors of files may lie anywhere.
            let shifted = [&[0][..], &bytes(&w)?].concat();
            assert!(convert_floats(&shifted[1..], [from, to])? == found, "{from} as {to}, shifted");
        }
        Ok(())
    })
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let f32s = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let pack = |row: &[f32], columns, dtypes, quantization| {
        pack_rows(&f32s(row), columns, dtypes, quantization, ScaleSearch::MinMax)
    };
    let (row, to) = ([1.0; 128], [Dtype::Float32, Dtype::Bfloat16]);
    let affine = Quantization::default();
    assert!(pack(&row, 64, to, affine).is_ok());
    for (columns, quantization) in [
        (0, affine),
        (32, affine),
        (64, Quantization { bits: 7, ..affine }),
        (64, Quantization { group_size: 0, ..affine }),
        (64, Quantization { group_size: -32, ..affine }),
        (64, Quantization { group_size: 64, ..Quantization::of(QuantMode::Mxfp4) }),
        (192, Quantization { group_size: 32, ..affine }),
    ] {
        let error = pack(&row, columns, to, quantization).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{quantization}");
        assert!(
            unpack_rows(
                &PackedBytes { weight: vec![1], ..PackedBytes::default() },
                columns,
                to[0],
                quantization
            )
            .is_err()
        );
    }
    assert!(pack(&row, 64, [Dtype::Float32, Dtype::Int32], affine).is_err());
    assert!(pack_rows(&f32s(&row)[1..], 64, to, affine, ScaleSearch::MinMax).is_err());
    assert!(unpack_rows(&PackedBytes::default(), 64, Dtype::Int8, affine).is_err());
    assert!(convert_floats(&[0; 4], [Dtype::Float32, Dtype::Uint8]).is_err());
    let mut row = row;
    row[70] = f32::NAN;
    assert_eq!(pack(&row, 64, to, affine).expect_err("refused").kind(), ErrorKind::Format);
}

/// The sum of squared differences of weights from what packed ones stand for.
fn distance(rows: &[u8], packed: &PackedBytes, quantization: Quantization) -> Result<f64> {
    let unpacked = unpack_rows(packed, 1280, Dtype::Float32, quantization)?;
    let floats = |bytes: &[u8]| -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    };
    Ok(floats(rows).iter().zip(floats(&unpacked)).map(|(a, b)| (a - b).powi(2)).sum())
}

#[test]
fn searched_scales_are_nearer_to_the_weights() -> Result<()> {
    with_device(Device::Cpu, || {
        let rows = bytes(&rows()?)?;
        for quantization in all() {
            let [plain, searched] = [ScaleSearch::MinMax, ScaleSearch::LeastSquares]
                .map(|search| pack_rows(&rows, 1280, [Dtype::Float32; 2], quantization, search));
            let (plain, searched) = (plain?, searched?);
            if quantization.mode != QuantMode::Affine {
                assert_eq!(plain, searched);
                continue;
            }
            let before = distance(&rows, &plain, quantization)?;
            let after = distance(&rows, &searched, quantization)?;
            // What there is to gain shrinks with the steps.
            let bound = if quantization.bits == 8 { 1.0 } else { 0.97 };
            assert!(after < bound * before, "{quantization}: {before} to {after}");
        }
        Ok(())
    })
}
