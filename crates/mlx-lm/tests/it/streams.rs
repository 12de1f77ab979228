//! Thinking and stop strings: the outcome must not depend on how the text was cut.

use std::fs;

use mlx_lm::files::ModelFiles;
use mlx_lm::stop::StopStrings;
use mlx_lm::thinking::{Segment, SegmentKind, Thinking};
use mlx_lm::tokenizer::Tokenizer;
use proptest::prelude::*;
use serde_json::json;

/// Cuts `text` after the characters whose numbers `cuts` holds.
fn pieces(text: &str, cuts: &[bool]) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for (at, c) in text.chars().enumerate() {
        pieces.last_mut().unwrap().push(c);
        if cuts.get(at).copied().unwrap_or(false) {
            pieces.push(String::new());
        }
    }
    pieces
}

fn split(thinking: &Thinking, open: bool, pieces: &[String]) -> (String, String) {
    let mut splitter = thinking.splitter(open);
    let mut segments: Vec<Segment> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
    segments.extend(splitter.finish());
    assert!(segments.iter().all(|segment| !segment.text.is_empty()));
    let text = |kind| {
        segments.iter().filter(|s| s.kind == kind).map(|s| s.text.as_str()).collect::<String>()
    };
    (text(SegmentKind::Reasoning), text(SegmentKind::Answer))
}

fn stop(stops: &[&str], pieces: &[String]) -> (String, Option<String>) {
    let mut watch = StopStrings::new(stops.iter().copied());
    let mut text: String = pieces.iter().map(|piece| watch.push(piece)).collect();
    text.push_str(&watch.finish());
    (text, watch.stopped().map(str::to_owned))
}

#[test]
fn reasoning_and_answer_come_apart() {
    let thinking = Thinking::new("<think>", "</think>");
    for (open, text, reasoning, answer) in [
        (false, "<think>why</think>so", "why", "so"),
        (true, "why</think>so", "why", "so"),
        (true, "<think>\nwhy</think>so", "\nwhy", "so"),
        (true, "cut off </thi", "cut off </thi", ""),
        (false, "plain", "", "plain"),
        (false, "a < b <thin", "", "a < b <thin"),
        (false, "</think>stray", "", "stray"),
        (false, "<think></think>", "", ""),
        (false, "a<think>b</think>c<think>d</think>e", "bd", "ace"),
        (false, "<<think>x</</think>y", "x</", "<y"),
        (false, "思<think>考</think>答", "考", "思答"),
    ] {
        let whole = split(&thinking, open, &[text.to_owned()]);
        assert_eq!((whole.0.as_str(), whole.1.as_str()), (reasoning, answer), "{text}");
        let single = split(&thinking, open, &pieces(text, &[true; 99]));
        assert_eq!(single, whole, "{text}");
    }
}

/// Loads the Qwen tokenizer with other added tokens and a template.
fn tokenizer(added: &[&str], template: &str) -> Tokenizer {
    let mut json = fixtures::json("mlx-lm/tokenizers/qwen/tokenizer.json");
    json["added_tokens"] = added
        .iter()
        .enumerate()
        .map(|(at, text)| {
            json!({"id": 420 + at, "content": text, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    Tokenizer::load(&ModelFiles::directory(dir.path()).unwrap()).unwrap()
}

#[test]
fn the_markers_follow_from_vocabulary_and_template() {
    let check = |added: &[&str], template: &str, text: &str, reasoning: &str| {
        let tokenizer = tokenizer(added, template);
        let thinking = tokenizer.thinking().unwrap();
        let parts = split(thinking, false, &pieces(text, &[true; 999]));
        assert_eq!((parts.0.as_str(), parts.1.as_str()), (reasoning, "a"), "{text}");
        assert_eq!(tokenizer.decode(thinking.start_ids(), false).unwrap(), thinking.start());
    };
    for [start, end] in [
        ["<think>", "</think>"],
        ["<longcat_think>", "</longcat_think>"],
        ["<|think:start|>", "<|think:end|>"],
    ] {
        check(&[start, end], "", &format!("{start}r{end}a"), "r");
        check(&[], &format!("{{{{ '{start}{end}' }}}}"), &format!("{start}r{end}a"), "r");
    }
    let text = "<|channel>thought\nr<channel|>a";
    check(&["<|channel>", "<channel|>"], "", text, "\nr");
    let text = "<|open|>think<|sep|>r<|close|>think<|sep|>\
                <|open|>response<|sep|>a<|close|>response<|sep|><|close|>message<|sep|>";
    check(&["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"], "", text, "r");
    let text = "<|channel|>analysis<|message|>r<|end|>\
                <|start|>assistant<|channel|>final<|message|>a<|return|>";
    let tokens = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"];
    check(&tokens, "", text, "r");
    let text = "to=self<|message|>r<|eom|><|start|>assistant to=user<|message|>a<|eot|>";
    check(&["<|start|>", "<|message|>", "<|eom|>", "<|eot|>"], "", text, "r");
    assert_eq!(tokenizer(&["<think>"], "{{ '</think>' }}").thinking(), None);
    assert_eq!(tokenizer(&[], "").thinking(), None);
}

#[test]
fn stop_strings_end_the_text_at_the_earliest_place() {
    for (stops, text, expected, stopped) in [
        (&["END"][..], "a END b", "a ", Some("END")),
        (&["END"], "a EN", "a EN", None),
        (&["b", "abc"], "xabc", "x", Some("abc")),
        (&["b", "abc"], "xabd", "xa", Some("b")),
        (&["b", "abc"], "xab", "xa", Some("b")),
        (&["ab", "a"], "xab", "x", Some("a")),
        (&["aab"], "aaab", "a", Some("aab")),
        (&["\n\n"], "one\ntwo\n\nthree", "one\ntwo", Some("\n\n")),
        (&["停"], "说停了", "说", Some("停")),
        (&["", "x"], "axb", "a", Some("x")),
        (&[], "all of it", "all of it", None),
    ] {
        let (whole, found) = stop(stops, &[text.to_owned()]);
        assert_eq!((whole.as_str(), found.as_deref()), (expected, stopped), "{stops:?} {text}");
        assert_eq!(stop(stops, &pieces(text, &[true; 99])), (whole, found), "{stops:?} {text}");
    }
}

#[test]
fn text_that_cannot_be_a_stop_string_is_not_held_back() {
    let mut watch = StopStrings::new(["Human:"]);
    assert_eq!(watch.push("Hello"), "Hello");
    assert_eq!(watch.push(" Hu"), " ");
    assert_eq!(watch.push("mbug"), "Humbug");
    assert_eq!(watch.push(" Human: x"), " ");
    assert_eq!((watch.push("more"), watch.finish()), (String::new(), String::new()));
    assert_eq!(watch.stopped(), Some("Human:"));
}

proptest! {
    #[test]
    fn thinking_does_not_depend_on_the_cuts(
        text in "(<|<t|<think>|</think>|</|hink>|[a-c思]){0,12}",
        cuts in proptest::collection::vec(any::<bool>(), 0..80),
        open in any::<bool>(),
    ) {
        let thinking = Thinking::new("<think>", "</think>");
        let whole = split(&thinking, open, std::slice::from_ref(&text));
        prop_assert_eq!(split(&thinking, open, &pieces(&text, &cuts)), whole);
    }

    #[test]
    fn stopping_does_not_depend_on_the_cuts(
        text in "[abc]{0,20}",
        stops in proptest::collection::vec("[abc]{1,4}", 0..4),
        cuts in proptest::collection::vec(any::<bool>(), 0..20),
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let whole = stop(&stops, std::slice::from_ref(&text));
        prop_assert_eq!(stop(&stops, &pieces(&text, &cuts)), whole.clone());
        // The definition, the slow way.
        let first = stops.iter().filter_map(|s| Some((text.find(s)?, s.len(), *s))).min();
        prop_assert_eq!(whole.0, &text[..first.map_or(text.len(), |(at, ..)| at)]);
        prop_assert_eq!(whole.1.as_deref(), first.map(|(.., stop)| stop));
    }
}
