//! Ctrl-C in a chat: it ends one answer, and the next one comes.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::portfolio::Model;
use super::report::Row;
use super::{Session, view};

/// How long a model may take until it says something: the first time it has to be loaded.
const PATIENCE: Duration = Duration::from_secs(600);

/// For what is on its way already.
const REST: Duration = Duration::from_millis(300);

pub fn check(session: &Session, model: &Model, _: &mut Row) -> Result<()> {
    // Of a model whose answers end, an answer might be over before it is interrupted.
    let view = view::without_end(session, model)?;
    let view = view.to_str().context("the path is not UTF-8")?;
    let mut child = session
        .program
        .command(["run", view, "--temperature", "1", "--seed", "1", "--max-tokens", "100000"])
        .stdin(Stdio::piped())
        .spawn()?;
    let talked = talk(&mut child);
    if talked.is_err() {
        // It may be gone already, or it is stuck.
        let _ = child.kill();
    }
    let code = child.wait()?.code();
    talked?;
    ensure!(code == Some(0), "the chat ends with {code:?}");
    Ok(())
}

/// Asks twice, and interrupts each answer.
fn talk(child: &mut Child) -> Result<()> {
    let mut stdin = child.stdin.take().context("piped")?;
    let answers = listen(child.stdout.take().context("piped")?);
    let notices = listen(child.stderr.take().context("piped")?);
    for which in ["first", "second"] {
        stdin.write_all(b"Count from one to a thousand, in words.\n")?;
        if answers.recv_timeout(PATIENCE).is_err() {
            let said = notices.try_recv().unwrap_or_default();
            bail!("the {which} answer does not come: {}", said.trim());
        }
        interrupt(child)?;
        // Warnings of the model may come before it.
        let mut told = String::new();
        while !told.ends_with("[interrupted]\n") {
            let more = notices.recv_timeout(PATIENCE);
            told += &more.with_context(|| format!("the {which} interrupt says {told:?}"))?;
        }
        while answers.recv_timeout(REST).is_ok() {}
    }
    Ok(())
}

/// Sends what the terminal sends on Ctrl-C.
fn interrupt(child: &Child) -> Result<()> {
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    ensure!(kill.stdin(Stdio::null()).status()?.success(), "the program is gone");
    Ok(())
}

/// Reads a pipe beside the suite, so that the program does not wait for a reader.
fn listen(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
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
