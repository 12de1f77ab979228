//! Functions in files: Python's are replayed, ours are read back, and what is broken is an error.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::slice::from_ref;

use mlx_core::ops::{self, Closeness};
use mlx_core::transforms::export::{
    ExportOptions, FunctionExporter, Kwargs, export_function, import_function,
};
use mlx_core::{Array, Dtype, Error, ErrorKind, Result, eval, fast, load_safetensors, nn};

use crate::alone::alone;

fn floats(values: &[f32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

fn check_close(what: &str, got: &Array, expected: &Array) {
    assert_eq!((got.shape(), got.dtype()), (expected.shape(), expected.dtype()), "{what}");
    let bounds = Closeness { rtol: 1e-5, atol: 1e-6, equal_nan: true };
    let close = got.allclose(expected, bounds).unwrap().item::<bool>().unwrap();
    assert!(close, "{what}: {got} {expected}");
}

#[derive(Default)]
struct Call {
    args: BTreeMap<usize, Array>,
    kwargs: Kwargs,
    outputs: BTreeMap<usize, Array>,
}

/// What the generator recorded: by case, by call.
fn expected() -> BTreeMap<String, BTreeMap<usize, Call>> {
    let tensors = load_safetensors(fixtures::path("mlx-core/export/expected.safetensors")).unwrap();
    let mut cases: BTreeMap<String, BTreeMap<usize, Call>> = BTreeMap::new();
    for (name, array) in tensors {
        let [case, call, what] = name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let calls = cases.entry(case.to_owned()).or_default();
        let call = calls.entry(call.parse().unwrap()).or_default();
        if let Some(key) = what.strip_prefix("kw:") {
            call.kwargs.insert(key.to_owned(), array);
        } else if let Some(i) = what.strip_prefix("arg") {
            call.args.insert(i.parse().unwrap(), array);
        } else {
            call.outputs.insert(what.strip_prefix("out").unwrap().parse().unwrap(), array);
        }
    }
    cases
}

fn python_file(case: &str) -> std::path::PathBuf {
    fixtures::path(&format!("mlx-core/export/{case}.mlxfn"))
}

#[test]
fn python_functions_are_replayed() {
    let cases = expected();
    assert!(cases.len() >= 11);
    for (case, calls) in cases {
        let function = import_function(python_file(&case)).unwrap();
        assert_eq!(function.mlx_version(), mlx_core::MLX_VERSION);
        for (n, call) in calls {
            let args: Vec<Array> = call.args.into_values().collect();
            let got = function.call_kwargs(&args, &call.kwargs).unwrap();
            assert_eq!(got.len(), call.outputs.len(), "{case} {n}");
            for (i, expected) in call.outputs {
                check_close(&format!("{case} {n} {i}"), &got[i], &expected);
            }
        }
    }
}

#[test]
fn a_thread_of_its_own_can_replay() {
    // MLX's reader would give the ops to another thread's stream.
    std::thread::spawn(|| {
        let function = import_function(python_file("layer")).unwrap();
        eval(&function.call(&[ops::ones(&[3, 4], Dtype::Float32).unwrap()]).unwrap()).unwrap();
    })
    .join()
    .unwrap();
}

/// The functions of `mlx-core/export/rust`, which Python has read and computed; see the generator.
fn export_all(dir: &Path) -> Result<()> {
    let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
    let none = Kwargs::new();
    let plain = |x: &[Array], _: &Kwargs| {
        Ok(vec![((&x[0] * 2.0)? + 1.0)?.softmax(-1, false)?.sum(0, false)?])
    };
    export_function(dir.join("plain.mlxfn"), plain, from_ref(&x), &none, false)?;

    let offset = ops::zeros(&[3], Dtype::Float32)?;
    offset.eval()?;
    let scaled =
        move |x: &[Array], named: &Kwargs| Ok(vec![((&x[0] * &named["scale"])? + &offset)?]);
    let mut exporter = FunctionExporter::new(
        dir.join("kwargs.mlxfn"),
        scaled,
        ExportOptions { metadata: "two traces".to_owned(), ..ExportOptions::default() },
    )?;
    let kwargs = Kwargs::from([("scale".to_owned(), Array::from(3.0f32))]);
    exporter.trace(from_ref(&x), &kwargs)?;
    exporter.trace(&[x.at(0)?], &kwargs)?;
    exporter.finish()?;

    // Our kernel cannot be written; its fallback can.
    let norm = nn::RmsNorm { weight: ops::ones(&[1], Dtype::Float32)?.into(), eps: 1e-5 };
    let norm = move |x: &[Array], _: &Kwargs| {
        let _ = &norm;
        Ok(vec![fast::rms_norm(&x[0], None, 1e-5)?])
    };
    export_function(dir.join("shapeless.mlxfn"), norm, from_ref(&x), &none, true)
}

#[test]
fn what_is_written_is_what_python_read() {
    let dir = tempfile::tempdir().unwrap();
    export_all(dir.path()).unwrap();
    let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
    let kwargs = Kwargs::from([("scale".to_owned(), Array::from(3.0f32))]);
    for dir in [dir.path(), &fixtures::path("mlx-core/export/rust")] {
        let plain = import_function(dir.join("plain.mlxfn")).unwrap();
        let expected = ((&x * 2.0).unwrap() + 1.0).unwrap().softmax(-1, false).unwrap();
        check_close(
            "plain",
            &plain.call(from_ref(&x)).unwrap()[0],
            &expected.sum(0, false).unwrap(),
        );
        let scaled = import_function(dir.join("kwargs.mlxfn")).unwrap();
        assert_eq!(scaled.metadata(), "two traces");
        for x in [&x, &x.at(0).unwrap()] {
            let got = scaled.call_kwargs(from_ref(x), &kwargs).unwrap();
            check_close("kwargs", &got[0], &(x * 3.0).unwrap());
        }
        let norm = import_function(dir.join("shapeless.mlxfn")).unwrap();
        for x in [&x, &x.at((.., ..2)).unwrap(), &x.at((..1, ..1)).unwrap()] {
            let expected = fast::rms_norm(x, None, 1e-5).unwrap();
            check_close("shapeless", &norm.call(from_ref(x)).unwrap()[0], &expected);
        }
    }
    for name in ["plain.mlxfn", "kwargs.mlxfn", "shapeless.mlxfn"] {
        let committed = fs::read(fixtures::path("mlx-core/export/rust").join(name)).unwrap();
        let fresh = fs::read(dir.path().join(name)).unwrap();
        assert_eq!(fresh.len(), committed.len(), "{name}");
    }
}

#[test]
fn arguments_without_a_trace_are_refused() {
    let function = import_function(python_file("kwargs")).unwrap();
    let (x, y) = (ops::ones(&[3, 4], Dtype::Float32).unwrap(), floats(&[1.0; 4]));
    let named = |names: &[&str]| -> Kwargs {
        names.iter().map(|name| ((*name).to_owned(), x.clone())).collect()
    };
    assert!(function.call_kwargs(from_ref(&x), &named(&["scale"])).is_ok());
    for (args, kwargs) in [
        (vec![], named(&["scale"])),
        (vec![x.clone()], named(&[])),
        (vec![x.clone()], named(&["shift"])),
        (vec![x.clone(), x.clone()], named(&[])),
        (vec![x.clone()], named(&["scale", "shift", "more"])),
        (vec![y], named(&["scale"])),
        (vec![x.astype(Dtype::Float16).unwrap()], named(&["scale"])),
    ] {
        let error = function.call_kwargs(&args, &kwargs).unwrap_err();
        assert!(error.to_string().starts_with("import: no trace for"), "{error}");
    }
    // Without shapes, what the ops refuse is still refused.
    let function = import_function(python_file("shapeless")).unwrap();
    let of = |shape: &[i32]| ops::ones(shape, Dtype::Float32).unwrap();
    assert!(function.call(&[of(&[3, 4]), of(&[3, 5])]).is_err());
    assert!(function.call(&[of(&[0, 4]), of(&[1, 4])]).is_ok());
}

#[test]
fn failures_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("100%s.mlxfn");
    let x = floats(&[1.0, 2.0]);
    let none = Kwargs::new();
    let failing = |_: &[Array], _: &Kwargs| Err(Error::new(ErrorKind::NotFound, "own"));
    let error = export_function(&path, failing, from_ref(&x), &none, false).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "own"));
    let panicking = |_: &[Array], _: &Kwargs| panic!("own");
    let payload = catch_unwind(AssertUnwindSafe(|| {
        export_function(&path, panicking, from_ref(&x), &none, false)
    }));
    assert_eq!(payload.unwrap_err().downcast_ref::<&str>(), Some(&"own"));
    // Custom rules cannot be written.
    let custom = mlx_core::transforms::checkpoint(|x| Ok(vec![x[0].exp()?])).unwrap();
    let custom = move |x: &[Array], _: &Kwargs| custom.call(x);
    assert!(export_function(&path, custom, from_ref(&x), &none, false).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let same = |x: &[Array], _: &Kwargs| Ok(x.to_vec());
    export_function(&path, same, from_ref(&x), &none, false).unwrap();
    assert_eq!(import_function(&path).unwrap().call(&[x]).unwrap()[0].size(), 2);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let missing = import_function(dir.path().join("none")).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let nowhere = dir.path().join("no/such/dir");
    assert!(export_function(nowhere, same, &[floats(&[1.0])], &none, false).is_err());
}

#[test]
fn an_exporter_is_of_no_use_after_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.mlxfn");
    let fails = Rc::new(Cell::new(true));
    let flag = fails.clone();
    let f = move |x: &[Array], _: &Kwargs| {
        if flag.get() { Err(Error::new(ErrorKind::Io, "own")) } else { Ok(x.to_vec()) }
    };
    let mut exporter = FunctionExporter::new(&path, f, ExportOptions::default()).unwrap();
    let none = Kwargs::new();
    assert_eq!(exporter.trace(&[floats(&[1.0])], &none).unwrap_err().to_string(), "own");
    fails.set(false);
    // MLX would compare these arguments with those of a trace that it has not made.
    assert!(exporter.trace(&[floats(&[1.0])], &none).is_err());
    assert!(exporter.finish().is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(Rc::strong_count(&fails), 1);

    let f = |x: &[Array], _: &Kwargs| Ok(x.to_vec());
    let mut exporter = FunctionExporter::new(&path, f, ExportOptions::default()).unwrap();
    exporter.trace(&[floats(&[1.0])], &none).unwrap();
    assert!(exporter.trace(&[floats(&[2.0])], &none).is_err(), "the same signature again");
}

#[test]
fn constants_are_written_as_they_are_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.mlxfn");
    let none = Kwargs::new();
    let export = |constant: Array| {
        let f = move |x: &[Array], _: &Kwargs| Ok(vec![(&x[0] + &constant)?]);
        export_function(&path, f, &[Array::from(1.0f32)], &none, false)?;
        import_function(&path)?.call(&[Array::from(1.0f32)])
    };
    let table = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
    let scalar = Array::from(7.0f32);
    // Computed views: MLX would write the bytes that come after where they start.
    for view in [
        table.t().unwrap(),
        scalar.broadcast_to([64, 64]).unwrap(),
        table.slice(&[0, 0], &[2, 3], &[1, 2]).unwrap(),
    ] {
        let lazy = export(view.clone()).unwrap();
        check_close("lazy", &lazy[0], &(&view + 1.0).unwrap());
        view.eval().unwrap();
        match export(view.clone()) {
            Ok(got) => check_close("computed", &got[0], &(&view + 1.0).unwrap()),
            Err(error) => assert!(error.to_string().contains("contiguous"), "{error}"),
        }
        let copy = view.contiguous().unwrap();
        copy.eval().unwrap();
        check_close("copy", &export(copy).unwrap()[0], &(&view + 1.0).unwrap());
    }
    let started = (&table * 3.0).unwrap();
    mlx_core::async_eval([&started]).unwrap();
    check_close("started", &export(started.clone()).unwrap()[0], &(&started + 1.0).unwrap());
    // A stand-in of another trace has no value.
    let kept = Rc::new(std::cell::RefCell::new(None));
    let keep = kept.clone();
    let leak = mlx_core::transforms::compile(
        move |x| {
            *keep.borrow_mut() = Some(x[0].clone());
            Ok(x.to_vec())
        },
        false,
    );
    leak.unwrap().call(&[Array::from(1.0f32)]).unwrap();
    let leaked = kept.borrow_mut().take().unwrap();
    assert!(export(leaked).is_err());
}

/// Numbers without a pattern.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn mutate(data: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(data.len());
        match numbers.below(7) {
            0 => data.truncate(at.max(1)),
            1 => data[at] ^= 1 << numbers.below(8),
            2 => data[at] = [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff][numbers.below(8)],
            3 => {
                data.remove(at);
                data.push(0);
            }
            4 => data.insert(at, 0),
            5 => {
                let end = (at + 8).min(data.len());
                data[at..end].fill([0, 0xff, 1][numbers.below(3)]);
            }
            _ => {
                let (from, len) = (numbers.below(data.len()), 1 + numbers.below(16));
                let piece = data[from..(from + len).min(data.len())].to_vec();
                let end = (at + piece.len()).min(data.len());
                data[at..end].copy_from_slice(&piece[..end - at]);
            }
        }
    }
}

#[test]
fn no_broken_file_ends_the_process() {
    alone("transforms::export::no_broken_file_ends_the_process", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.mlxfn");
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let (mut read, mut ran) = (0, 0);
        for (case, calls) in expected() {
            let whole = fs::read(python_file(&case)).unwrap();
            for len in 0..whole.len().min(400) {
                fs::write(&path, &whole[..len]).unwrap();
                assert!(import_function(&path).is_err(), "{case} cut at {len}");
            }
            for _ in 0..300 {
                let mut data = whole.clone();
                mutate(&mut data, &mut numbers);
                fs::write(&path, &data).unwrap();
                let Ok(function) = import_function(&path) else { continue };
                read += 1;
                for call in calls.values() {
                    let args: Vec<Array> = call.args.values().cloned().collect();
                    let outputs = function.call_kwargs(&args, &call.kwargs);
                    ran += usize::from(outputs.is_ok_and(|outputs| eval(&outputs).is_ok()));
                }
            }
        }
        assert!(read > 100 && ran > 50, "{read} read, {ran} ran");
    });
}
