//! The key sequence: what a seed determines, and going on from a saved state.

use mlx_core::random::{self, KeySequence};
use mlx_core::{Array, Dtype, ErrorKind, load_safetensors, save_safetensors};

fn draw() -> Vec<f32> {
    let draw = random::uniform(0.0, 1.0, &[4], Dtype::Float32, None);
    draw.unwrap().to_vec().unwrap()
}

#[test]
fn a_seed_determines_what_follows() {
    random::seed(3).unwrap();
    let first = [draw(), draw()];
    assert_ne!(first[0], first[1]);
    random::seed(3).unwrap();
    assert_eq!([draw(), draw()], first);
    random::seed(4).unwrap();
    assert_ne!(draw(), first[0]);
}

#[test]
fn a_saved_state_continues_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.safetensors");
    random::seed(11).unwrap();
    draw();
    let state = random::state().unwrap();
    save_safetensors(&path, [("random", &state)], &[]).unwrap();
    let expected = [draw(), draw()];

    random::seed(0).unwrap();
    draw();
    let saved = load_safetensors(&path).unwrap();
    random::set_state(&saved["random"]).unwrap();
    assert_eq!([draw(), draw()], expected);
}

#[test]
fn threads_have_sequences_of_their_own() {
    random::seed(5).unwrap();
    let here = draw();
    let there = std::thread::spawn(|| {
        random::seed(5).unwrap();
        (draw(), draw())
    });
    let (first, second) = there.join().unwrap();
    assert_eq!(first, here);
    assert_eq!(draw(), second);
}

#[test]
fn threads_that_nobody_seeded_draw_something() {
    let drawn = std::thread::spawn(|| (draw(), draw())).join().unwrap();
    assert_ne!(drawn.0, drawn.1);
}

#[test]
fn a_sequence_agrees_with_the_thread_s() {
    random::seed(9).unwrap();
    let mut keys = KeySequence::new(9).unwrap();
    for _ in 0..3 {
        let (own, default) = (keys.next_key().unwrap(), random::next_key().unwrap());
        assert_eq!(own.to_vec::<u32>().unwrap(), default.to_vec::<u32>().unwrap());
    }
    let mut again = KeySequence::from_state(keys.state()).unwrap();
    let (own, again) = (keys.next_key().unwrap(), again.next_key().unwrap());
    assert_eq!(own.to_vec::<u32>().unwrap(), again.to_vec::<u32>().unwrap());
}

#[test]
fn a_state_has_to_be_a_key() {
    for bad in [Array::from(1u32), Array::from_slice(&[1i32, 2], &[2]).unwrap()] {
        assert_eq!(random::set_state(&bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    random::seed(1).unwrap();
    let expected = draw();
    random::seed(1).unwrap();
    random::set_state(&Array::from(1u32)).unwrap_err();
    assert_eq!(draw(), expected, "the state stays");
}
