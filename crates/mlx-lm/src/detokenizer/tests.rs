use proptest::prelude::*;

use super::*;

#[test]
fn the_byte_alphabet_is_the_one_of_the_tokenizers_crate() {
    let table = byte_level_alphabet();
    let theirs = ByteLevel::alphabet();
    let ours = (0..table.len()).filter(|at| table[*at].is_some());
    let ours: Vec<char> = ours.filter_map(|at| char::from_u32(at as u32)).collect();
    assert_eq!(ours.len(), 256);
    assert!(ours.iter().all(|c| theirs.contains(c)));
    let mut bytes: Vec<u8> = table.into_iter().flatten().collect();
    bytes.sort_unstable();
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
}

#[test]
fn the_decoder_chooses_the_kind() {
    let replace = json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "});
    let fallback = json!({"type": "ByteFallback"});
    let fuse = json!({"type": "Fuse"});
    let strip = |start| json!({"type": "Strip", "content": " ", "start": start, "stop": 0});
    let sequence = |steps: &[&Value]| json!({"type": "Sequence", "decoders": steps});
    let check = |decoder: Value, kind| assert_eq!(Kind::of(&decoder), kind, "{decoder}");

    check(json!({"type": "ByteLevel", "add_prefix_space": true}), Kind::ByteLevel);
    check(
        sequence(&[&replace, &fallback, &fuse, &strip(1)]),
        Kind::SentencePiece { trim_first_space: true },
    );
    check(sequence(&[&replace, &fallback, &fuse]), Kind::SentencePiece { trim_first_space: false });
    check(sequence(&[&replace, &fallback, &fuse, &strip(2)]), Kind::Window);
    check(sequence(&[&replace, &fuse]), Kind::Window);
    check(json!({"type": "Metaspace"}), Kind::Window);
    check(Value::Null, Kind::Window);
}

#[test]
fn a_byte_token_has_exactly_two_hexadecimal_digits() {
    for (token, expected) in [
        ("<0x00>", &b"\0"[..]),
        ("<0xe4>", b"\xe4"),
        ("<0xE4>", b"\xe4"),
        ("<0x4>", b"<0x4>"),
        ("<0x412>", b"<0x412>"),
        ("<0xG1>", b"<0xG1>"),
        ("\u{2581}a\u{2581}", b" a "),
    ] {
        let mut bytes = Vec::new();
        sentence_piece(token, &mut bytes);
        assert_eq!(bytes, expected, "{token}");
    }
}

proptest! {
    #[test]
    fn bytes_come_out_as_a_lossy_conversion_of_the_whole(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..12),
    ) {
        let whole = parts.concat();
        let (mut pending, mut text) = (Vec::new(), String::new());
        for part in parts {
            pending.extend(part);
            drain_complete(&mut pending, &mut text);
        }
        text.push_str(&String::from_utf8_lossy(&pending));
        prop_assert_eq!(text, String::from_utf8_lossy(&whole));
    }

    #[test]
    fn clean_up_does_not_depend_on_the_cut(
        text in "( |'|n't|'m|'s|'ve|'re|n|t|\\.|,|a|\n|好){0,16}",
        rest in "( |'|n't|'m|'s|'ve|'re|n|t|\\.|,|a|\n|好){0,8}",
    ) {
        let certain = clean_up_boundary(&text, 0);
        let whole = format!("{text}{rest}");
        let joined = clean_up(&text[..certain]) + &clean_up(&whole[certain..]);
        prop_assert_eq!(joined, clean_up(&whole));
    }
}
