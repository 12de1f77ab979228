//! `mlxk run` without a prompt: a chat, here over pipes.

use std::io::{Read, Write as _};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::run::{LONG, endless, interrupt};
use crate::support::{Ran, TinyModel, mlxk, run, run_with_stdin};

fn chat(model: &str, args: &[&str], stdin: &str) -> Ran {
    let args: Vec<&str> = ["run", model].into_iter().chain(args.iter().copied()).collect();
    run_with_stdin(&args, stdin.as_bytes())
}

#[test]
fn each_line_is_answered() {
    let question = "What is the capital of France?";
    let args = ["--thinking", "off"];
    let once = run(["run", "demo", "--thinking", "off", question]).ok();
    let ran = chat("demo", &args, &format!("{question}\n/quit\nnot read\n"));
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.ok(), once);
    let ran = chat("demo", &args, &format!("{question}\nAnd of Italy?"));
    let text = ran.ok();
    assert!(text.starts_with(&once) && text.contains("Rome"), "{text}");
}

#[test]
fn the_end_of_input_ends_it() {
    let model = TinyModel::new();
    let ran = chat(model.arg(), &[], "");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let ran = chat(model.arg(), &[], "\n  \n");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn commands_are_obeyed_and_tell_on_stderr() {
    let model = TinyModel::new();
    let file = model.path().join("talk.json");
    let save = format!("/save {}\n", file.display());
    let talk = format!(
        "/system Be brief.\none\\\ntwo\n\"\"\"\nthree\n\nfour\"\"\"\n{save}/clear\n/system\nfive\n{save}\
         /save\n/save {}/config.json\n/help\n/nonsense\n/quit\n",
        model.arg()
    );
    let ran = chat(model.arg(), &["--max-tokens", "4", "--temperature", "0"], &talk);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.stdout.lines().count(), ran.stdout.matches('\n').count());
    for text in [
        "the system prompt is set",
        "the system prompt is removed",
        "the conversation is forgotten",
        "saved to ",
        "error: /save needs the name of a file",
        "config.json: File exists",
        "/clear        forget",
        "error: unknown command /nonsense\nhint: /help lists the commands",
    ] {
        assert!(ran.stderr.contains(text), "{text:?} is not in {}", ran.stderr);
    }
    let saved: Value = serde_json::from_slice(&model.read("talk.json")).expect("JSON");
    let roles = |saved: &Value| {
        let messages = saved["messages"].as_array().expect("a list").clone();
        messages.iter().map(|m| m["role"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(saved["model"], model.arg());
    assert_eq!(roles(&saved), ["user", "assistant"]);
    assert_eq!(saved["messages"][0]["content"], "five");
    // The answer that was saved is the one that was shown.
    let answer = saved["messages"][1]["content"].as_str().expect("text");
    assert!(ran.stdout.ends_with(&format!("{answer}\n")));
}

#[test]
fn saved_turns_keep_their_lines() {
    let model = TinyModel::new();
    let file = model.path().join("talk.json");
    let talk =
        format!("/system S\none\\\ntwo\n\"\"\"\nthree\n\nfour\"\"\"\n/save {}\n", file.display());
    chat(model.arg(), &["--max-tokens", "2"], &talk).ok();
    let saved: Value = serde_json::from_slice(&model.read("talk.json")).expect("JSON");
    let contents: Vec<&str> = saved["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|message| message["role"] != "assistant")
        .map(|message| message["content"].as_str().expect("text"))
        .collect();
    assert_eq!(contents, ["S", "one\ntwo", "three\n\nfour"]);
}

#[test]
fn only_what_is_new_is_computed() {
    let model = TinyModel::new();
    let ran = chat(model.arg(), &["--max-tokens", "4", "--temperature", "0", "-v"], "one\ntwo\n");
    let prompts: Vec<&str> =
        ran.stderr.lines().filter(|line| line.starts_with("prompt: ")).collect();
    assert_eq!(prompts.len(), 2, "{}", ran.stderr);
    assert!(!prompts[0].contains("cached"), "{}", prompts[0]);
    assert!(prompts[1].contains("cached"), "{}", prompts[1]);
}

#[test]
fn a_turn_that_fails_leaves_no_trace() {
    let model = TinyModel::new();
    let args = ["--max-tokens", "3", "--temperature", "0"];
    let long = "x".repeat(600);
    let ran = chat(model.arg(), &args, &format!("one\n{long}\ntwo\n"));
    assert_eq!(ran.code, Some(0));
    let lines: Vec<&str> = ran.stderr.lines().filter(|line| !line.starts_with('[')).collect();
    assert!(lines[0].starts_with("error: the prompt has "), "{}", ran.stderr);
    assert_eq!(lines.last(), Some(&"hint: /clear starts a new conversation"));
    assert_eq!(ran.stdout, chat(model.arg(), &args, "one\ntwo\n").stdout);
}

#[test]
fn without_a_template_speakers_are_named() {
    let model = TinyModel::new();
    let ran = chat(
        model.arg(),
        &["--no-chat-template", "--max-tokens", "1", "--temperature", "0", "-v"],
        "hi\n",
    );
    let expected = "Human: hi\n\nAssistant:".len();
    assert!(ran.stderr.contains(&format!("prompt: {expected} tokens")), "{}", ran.stderr);
}

#[test]
fn ctrl_c_ends_the_answer_and_not_the_chat() {
    let model = endless();
    let mut child = mlxk()
        .args(["run", model.arg(), "--temperature", "1", "--seed", "1"])
        .args(LONG)
        .stdin(Stdio::piped())
        .spawn()
        .expect("mlxk starts");
    let mut stdin = child.stdin.take().expect("piped");
    let answers = listen(child.stdout.take().expect("piped"));
    let notices = listen(child.stderr.take().expect("piped"));
    let wait = Duration::from_secs(60);
    for _ in 0..3 {
        stdin.write_all(b"hi\n").expect("mlxk reads");
        answers.recv_timeout(wait).expect("an answer");
        interrupt(&child);
        assert_eq!(notices.recv_timeout(wait).expect("a notice"), "[interrupted]\n");
        // The answer was complete before the notice; what is left of it may still be on its way.
        while answers.recv_timeout(Duration::from_millis(300)).is_ok() {}
    }
    drop(stdin);
    assert_eq!(child.wait().expect("mlxk ends").code(), Some(0));
}

/// Reads a pipe beside the test, so that the program does not wait for a reader.
fn listen(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut bytes) {
            if sender.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}
