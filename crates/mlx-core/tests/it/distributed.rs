//! Collectives among processes of this program on one machine, joined by MLX's ring backend.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlx_core::distributed::{
    self, Backend, Group, InitOptions, all_gather, all_max, all_min, all_sum, recv, recv_like,
    send, sum_scatter,
};
use mlx_core::{Array, Dtype, ErrorKind, Result, async_eval, eval, ops};

use crate::alone::alone;

const SCRIPT: &str = "MLX_CORE_TEST_DISTRIBUTED";
const RING: InitOptions = InitOptions { strict: true, backend: Backend::Ring };

/// Starts one process for each rank, has each run `script`, and returns them.
///
/// Ports that are free now may be taken when a process listens, so callers try again.
fn start(script: &str, size: usize, dir: &tempfile::TempDir) -> Vec<Child> {
    let listeners: Vec<_> =
        (0..size).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let hosts: Vec<[String; 1]> =
        listeners.iter().map(|l| [l.local_addr().expect("an address").to_string()]).collect();
    let hostfile = dir.path().join("hosts.json");
    std::fs::write(&hostfile, serde_json::to_string(&hosts).expect("text")).expect("written");
    drop(listeners);
    let start = |rank: usize| {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "distributed::child_process", "--nocapture"])
            .env(SCRIPT, script)
            .env("MLX_HOSTFILE", &hostfile)
            .env("MLX_RANK", rank.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the child starts")
    };
    (0..size).map(start).collect()
}

/// Waits for a process, but not forever; returns what it wrote if it did not succeed.
fn end(mut child: Child, limit: Duration) -> Result<(), String> {
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("the child's state") {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if status.is_none() {
        let _ = child.kill();
    }
    let mut text = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
    let _ = child.wait();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{status}\n{text}")),
        None => Err(format!("still running after {limit:?}\n{text}")),
    }
}

fn check_script(script: &str, size: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut failures = Vec::new();
    for _ in 0..2 {
        let children = start(script, size, &dir);
        failures = children
            .into_iter()
            .map(|child| end(child, Duration::from_secs(100)))
            .filter_map(Result::err)
            .collect();
        if failures.is_empty() {
            return;
        }
    }
    panic!("{script}:\n{}", failures.join("\n"));
}

#[test]
fn child_process() {
    match std::env::var(SCRIPT).as_deref() {
        Ok("collectives") => collectives().expect("collectives"),
        Ok("peer") => lose_a_peer().expect("a lost peer"),
        Ok("exit") => exit_with_a_collective_under_way().expect("a group"),
        Ok("threads") => join_from_another_thread().expect("a group"),
        _ => {}
    }
}

#[test]
fn two_processes_exchange_arrays() {
    check_script("collectives", 2);
}

#[test]
fn three_processes_exchange_arrays() {
    check_script("collectives", 3);
}

#[test]
fn a_lost_peer_is_an_error_soon() {
    check_script("peer", 2);
}

#[test]
fn exit_does_not_wait_for_a_peer_that_stands_still() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut outcome = Ok(());
    for _ in 0..2 {
        let mut children = start("exit", 2, &dir).into_iter();
        let first = children.next().expect("a process");
        outcome = end(first, Duration::from_secs(30));
        for mut other in children {
            let _ = other.kill();
            let _ = other.wait();
        }
        if outcome.as_ref().is_err_and(|text| text.starts_with("exit status: 7")) {
            return;
        }
    }
    panic!("{outcome:?}");
}

#[test]
fn one_thread_of_a_process_talks_to_the_others() {
    check_script("threads", 2);
}

fn collectives() -> Result<()> {
    let group = Group::init(RING)?;
    let (rank, size) = (group.rank(), group.size());
    let again = Group::init(InitOptions::default())?;
    assert_eq!((again.rank(), again.size()), (rank, size));

    let own = |values: &[i32]| -> Result<Array> {
        Array::from_slice(values, &[values.len() as i32])? * (rank + 1)
    };
    let total: i32 = (1..=size).sum();
    for dtype in [Dtype::Int32, Dtype::Float32, Dtype::Float16, Dtype::Bfloat16, Dtype::Uint8] {
        let x = own(&[1, 2, 3, 4, 5])?.astype(dtype)?;
        let sum = all_sum(&x, &group)?;
        assert_eq!(sum.dtype(), dtype);
        let expected: Vec<i32> = (1..=5).map(|n| n * total).collect();
        assert_eq!(sum.to_vec_as::<i32>()?, expected);
        let most: Vec<i32> = (1..=5).map(|n| n * size).collect();
        assert_eq!(all_max(&x, &group)?.to_vec_as::<i32>()?, most);
        assert_eq!(all_min(&x, None)?.to_vec_as::<i32>()?, [1, 2, 3, 4, 5]);
    }
    // Fewer elements than processes, none, a view, and more than one packet.
    assert_eq!(all_sum(&Array::from(rank + 1), &group)?.item::<i32>()?, total);
    assert_eq!(all_sum(&ops::zeros(&[0, 3], Dtype::Float32)?, &group)?.shape(), [0, 3]);
    let view = own(&[1, 2, 3, 4, 5, 6])?.reshape([2, 3])?.t()?;
    let expected: Vec<i32> = [1, 4, 2, 5, 3, 6].iter().map(|n| n * total).collect();
    assert_eq!(all_sum(&view, &group)?.to_vec::<i32>()?, expected);
    let large = ops::full(&[1 << 20], rank + 1, Dtype::Int32)?;
    let large = all_sum(&large, &group)?;
    assert!(large.to_vec::<i32>()?.iter().all(|&n| n == total));

    let rows = all_gather(&own(&[1, 2, 3, 4])?.reshape([2, 2])?, &group)?;
    assert_eq!(rows.shape(), [2 * size, 2]);
    let expected: Vec<i32> = (1..=size).flat_map(|r| [r, 2 * r, 3 * r, 4 * r]).collect();
    assert_eq!(rows.to_vec::<i32>()?, expected);
    let ranks = all_gather(&Array::from(rank), &group)?;
    assert_eq!(ranks.to_vec::<i32>()?, (0..size).collect::<Vec<_>>());
    let error = all_gather(&ops::zeros(&[1 << 30, 0], Dtype::Int8)?, &group).unwrap_err();
    assert!(error.to_string().ends_with("are too long"), "{error}");

    // Around the ring; even ranks send first, so that with two of them nobody waits for himself.
    let (next, last) = ((rank + 1) % size, (rank + size - 1) % size);
    let sent = send(&own(&[7, 8])?, next, &group)?;
    let received = recv(&[2], Dtype::Int32, last, &group)?;
    if rank % 2 == 0 {
        eval([&sent])?;
        eval([&received])?;
    } else {
        eval([&received])?;
        eval([&sent])?;
    }
    assert_eq!(received.to_vec::<i32>()?, [7 * (last + 1), 8 * (last + 1)]);
    if rank == 0 {
        send(&own(&[9])?, next, &group)?.eval()?;
    } else if rank == 1 {
        assert_eq!(recv_like(&Array::from_slice(&[0], &[1])?, 0, &group)?.item::<i32>()?, 9);
    }

    for (other, kind) in [
        (rank, ErrorKind::InvalidArgument),
        (size, ErrorKind::OutOfRange),
        (-1, ErrorKind::OutOfRange),
    ] {
        assert_eq!(send(&ranks, other, &group).unwrap_err().kind(), kind);
        assert_eq!(recv(&[1], Dtype::Int32, other, &group).unwrap_err().kind(), kind);
        assert_eq!(recv_like(&ranks, other, &group).unwrap_err().kind(), kind);
    }
    assert!(recv(&[-1], Dtype::Int32, next, &group).is_err());
    assert!(group.split(0, None).is_err(), "a ring cannot be divided");
    assert!(sum_scatter(&ops::zeros(&[size + 1], Dtype::Int32)?, &group).is_err());
    let share = sum_scatter(&ops::zeros(&[2 * size, 3], Dtype::Int32)?, &group)?;
    assert_eq!(share.shape(), [2, 3]);
    let error = share.eval().unwrap_err();
    assert_eq!(error.to_string(), "ring: sum_scatter not supported");

    // Nobody leaves while another still reads.
    all_sum(&Array::from(1), &group)?.eval()
}

fn lose_a_peer() -> Result<()> {
    let group = Group::init(RING)?;
    all_sum(&Array::from(1.0f32), &group)?.eval()?;
    if group.rank() == 1 {
        std::process::exit(0);
    }
    let start = Instant::now();
    let x = all_sum(&ops::ones(&[1000], Dtype::Float32)?, &group)?;
    // One behind the other, queued before the first has failed.
    let x = all_max(&(all_sum(&x, &group)? * 0.5)?, &group)?;
    let error = x.eval().unwrap_err();
    assert_eq!(error.to_string(), "ring: connection to a peer was lost");
    assert!(x.to_vec::<f32>().is_err());
    // The connection is not served any more, and MLX's own collective would wait for it forever.
    for _ in 0..3 {
        let error = all_sum(&Array::from(1.0f32), &group)?.eval().unwrap_err();
        assert_eq!(
            error.to_string(),
            "distributed: an earlier collective of this group failed: [ring] connection to a peer \
             was lost"
        );
    }
    assert!(all_gather(&(recv(&[2], Dtype::Int32, 1, &group)? + 1)?, None)?.eval().is_err());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // What has nothing to do with the ring goes on.
    assert_eq!((Array::from(1.0f32) + 1.0)?.item::<f32>()?, 2.0);
    Ok(())
}

/// Leaves with a code of its own, while its neighbour does not answer.
fn exit_with_a_collective_under_way() -> Result<()> {
    let group = Group::init(RING)?;
    all_sum(&Array::from(1.0f32), &group)?.eval()?;
    if group.rank() == 1 {
        std::thread::sleep(Duration::from_secs(100));
    }
    let x = all_sum(&ops::ones(&[1000], Dtype::Float32)?, &group)?;
    async_eval([&all_sum(&(x + 1.0)?, &group)?])?;
    std::process::exit(7);
}

fn join_from_another_thread() -> Result<()> {
    let group = Group::init(RING)?;
    std::thread::spawn(|| {
        let error = Group::init(RING).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(all_sum(&Array::from(1.0f32), None).is_err());
    })
    .join()
    .expect("the thread");
    all_sum(&Array::from(1), &group)?.eval()
}

#[test]
fn a_process_alone_is_a_group_of_one() {
    alone("distributed::a_process_alone_is_a_group_of_one", || {
        assert!(distributed::is_available(Backend::Any));
        assert!(distributed::is_available(Backend::Ring));
        let group = Group::init(InitOptions::default()).unwrap();
        assert_eq!((group.rank(), group.size()), (0, 1));
        let x = ops::ones(&[3, 2], Dtype::Float32).unwrap();
        for y in [
            all_sum(&x, &group),
            all_max(&x, None),
            all_min(&x, &group),
            all_gather(&x, None),
            sum_scatter(&x, &group),
        ] {
            let y = y.unwrap();
            assert_eq!((y.shape(), y.to_vec::<f32>().unwrap()), (&[3, 2][..], vec![1.0; 6]));
        }
        for dst in [-1, 0, 1] {
            assert_eq!(send(&x, dst, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
            assert!(recv(&[2], Dtype::Float32, dst, &group).is_err());
            assert!(recv_like(&x, dst, &group).is_err());
        }
        assert!(group.split(0, 1).is_err());
        let error = Group::init(RING).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("ring: "), "{error}");
        // Any thread may, where nobody is talked to.
        std::thread::spawn(|| Group::init(InitOptions::default()).map(|g| g.size()))
            .join()
            .unwrap()
            .unwrap();
    });
}

#[test]
fn an_environment_without_sense_is_an_error() {
    const CHILD: &str = "MLX_CORE_TEST_ENVIRONMENT";
    if std::env::var_os(CHILD).is_some() {
        let error = Group::init(RING).map(|g| g.size()).unwrap_err();
        assert!(all_sum(&Array::from(1), None).is_err(), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let hostfile = dir.path().join("hosts.json");
    for (hosts, rank) in [
        ("[[\"127.0.0.1:1\"], [\"127.0.0.1:2\"]]", "-1"),
        ("[[\"127.0.0.1:1\"], [\"127.0.0.1:2\"]]", "first"),
        ("[[\"127.0.0.1:1\"], [\"127.0.0.1:2\"]]", "2"),
        ("[]", "0"),
        ("", "0"),
        ("null", "0"),
        ("{}", "0"),
        ("[[]]", "0"),
        ("[[\"127.0.0.1\"]]", "0"),
        ("[[\"nowhere:port\"], [3]]", "1"),
    ] {
        std::fs::write(&hostfile, hosts).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "distributed::an_environment_without_sense_is_an_error"])
            .env(CHILD, "1")
            .env("MLX_HOSTFILE", &hostfile)
            .env("MLX_RANK", rank)
            .output()
            .unwrap();
        assert!(output.status.success(), "{hosts} {rank}: {output:?}");
    }
}
