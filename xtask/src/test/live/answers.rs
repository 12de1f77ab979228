//! What a model answers, in each of the ways to ask it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Session;
use super::portfolio::Model;
use super::program::is_warning;
use super::report::{Performance, Row};

pub const QUESTION: &str = "What is the capital of France?";

/// What a comparison asks, so that different kinds of answers are compared.
pub const QUESTIONS: [&str; 3] = [QUESTION, "Count from one to five.", "Say hello."];

/// The same answer each time, and a short one.
pub const GREEDY: [&str; 6] =
    ["--temperature", "0", "--repetition-penalty", "1", "--max-tokens", "48"];

/// Asks once, as a program does.
pub fn ask(session: &Session, model: &str, question: &str) -> Result<Value> {
    session.program.json(&[&["run", model, question], &GREEDY[..]].concat())
}

/// Checks that the figures fit each other, and notes the speed.
pub fn check_json(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    let data = ask(session, &model.name, QUESTION)?;
    let performance = Performance::read(&data)?;
    let listed = data["token_ids"].as_array().map_or(0, Vec::len) as u64;
    ensure!(listed > 0, "no token was generated");
    // The token that ends an answer is listed, but is no part of it.
    let counted = performance.completion_tokens;
    let ends = u64::from(data["finish_reason"] == "stop");
    ensure!(
        counted <= listed && listed <= counted + ends,
        "{counted} tokens counted, {listed} listed"
    );
    let total = performance.prompt_tokens + performance.completion_tokens;
    ensure!(data["usage"]["total_tokens"] == total, "the total is not {total}");
    ensure!(performance.peak_memory_bytes > 0, "no memory was used");
    let text = |key: &str| data[key].as_str().unwrap_or_default().trim().to_owned();
    if text("response").is_empty() && text("reasoning").is_empty() {
        row.notes.push("the answer is empty".to_owned());
    }
    row.performance = Some(performance);
    Ok(())
}

/// Checks that the answer alone is on stdout, and figures on stderr.
pub fn check_text(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    let args = [&["run", &model.name, QUESTION], &GREEDY[..]].concat();
    let plain = session.program.run(&args)?;
    let verbose = session.program.run(args.iter().chain(&["--verbose"]))?;
    for figure in ["loaded in", "prompt: ", "answer: ", "first token after", "peak memory: "] {
        ensure!(verbose.stderr.contains(figure), "--verbose has no `{figure}` on stderr");
    }
    ensure_notices(&plain.stderr)?;
    let (plain, verbose) = (plain.ok()?, verbose.ok()?);
    ensure!(plain == verbose, "--verbose changes stdout: {plain:?} is {verbose:?}");
    Ok(())
}

/// Checks that a conversation over pipes has as many answers as lines, and ends with its input.
pub fn check_chat(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    let once =
        session.program.run([&["run", &model.name, QUESTION], &GREEDY[..]].concat())?.ok()?;
    let args = [&["run", &model.name], &GREEDY[..]].concat();
    let ran = session.program.run_with_stdin(&args, &format!("{QUESTION}\nAnd of Italy?\n"))?;
    ensure_notices(&ran.stderr)?;
    let both = ran.ok()?;
    // Without a chat template a conversation is written another way than a single prompt.
    if model.capabilities.iter().any(|capability| capability == "chat") {
        let rest = both.strip_prefix(&once);
        let rest = rest.with_context(|| format!("{both:?} does not begin with {once:?}"))?;
        ensure!(!rest.is_empty(), "the second line has no answer");
    }
    Ok(())
}

/// Checks that an answer is the same as it comes, when it is complete, and as JSON.
pub fn check_streaming(session: &Session, model: &Model, row: &mut Row) -> Result<()> {
    for question in QUESTIONS {
        let data = ask(session, &model.name, question)?;
        let args = [&["run", &model.name, question], &GREEDY[..]].concat();
        let streamed = session.program.run(&args)?.ok()?;
        let whole = session.program.run(args.iter().chain(&["--no-stream"]))?.ok()?;
        ensure!(streamed == whole, "streamed: {streamed:?}, at once: {whole:?}");
        let shown = shown(&data)?;
        ensure!(streamed == shown, "as text: {streamed:?}, as JSON: {shown:?}");
        row.performance = Some(Performance::read(&data)?);
    }
    Ok(())
}

/// What a person sees of an answer that a program got.
pub fn shown(data: &Value) -> Result<String> {
    let response = data["response"].as_str().context("no response")?;
    Ok(match data["reasoning"].as_str() {
        Some(reasoning) if response.is_empty() => format!("**Reasoning**\n\n{reasoning}\n"),
        Some(reasoning) => {
            format!("**Reasoning**\n\n{reasoning}\n\n---\n\n**Answer**\n\n{response}\n")
        }
        None => format!("{response}\n"),
    })
}

/// Checks that failures are told on stderr, or within the envelope, and never both.
pub fn check_errors(session: &Session) -> Result<()> {
    let program = &session.program;
    for args in [
        &["run", "no-such-owner/no-such-model", "hi"][..],
        &["run", "./no-such-directory", "hi"],
        &["run", "demo", "hi", "--no-such-flag"],
        &["run", "demo", "hi", "--max-tokens", "0"],
        &["show", "no-such-owner/no-such-model"],
    ] {
        let line = args.join(" ");
        let ran = program.run(args)?;
        ensure!(ran.code.is_some_and(|code| code != 0), "`{line}` is no failure: {:?}", ran.code);
        ensure!(ran.stdout.is_empty(), "`{line}` fails, and stdout has {:?}", ran.stdout);
        ensure!(ran.stderr.starts_with("error: "), "`{line}` says {:?}", ran.stderr);
        let ran = program.run(args.iter().chain(&["--json"]))?;
        let envelope = program.envelope(&ran).with_context(|| line.clone())?;
        ensure!(envelope["status"] == "error", "`{line} --json` is no error");
        let code = envelope["error"]["exit_code"].as_i64();
        ensure!(code == ran.code.map(i64::from), "`{line}` says {code:?}, not {:?}", ran.code);
    }
    Ok(())
}

/// Checks that stderr of a run that went well has warnings only, and notices in brackets.
fn ensure_notices(stderr: &str) -> Result<()> {
    let is_notice = |line: &str| line.starts_with('[') && line.ends_with(']') || is_warning(line);
    ensure!(stderr.lines().all(is_notice), "stderr has {:?}", stderr.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_shown_with_its_reasoning() {
        for (response, reasoning, expected) in [
            ("Paris", json!(null), "Paris\n"),
            ("Paris", json!("hm"), "**Reasoning**\n\nhm\n\n---\n\n**Answer**\n\nParis\n"),
            ("", json!("hm"), "**Reasoning**\n\nhm\n"),
        ] {
            let data = json!({"response": response, "reasoning": reasoning});
            assert_eq!(shown(&data).unwrap(), expected);
        }
    }

    #[test]
    fn notices_are_in_brackets() {
        ensure_notices("[cut at --max-tokens 48]\n").unwrap();
        assert!(ensure_notices("[cut]\nloaded in 1 s\n").is_err());
    }
}
