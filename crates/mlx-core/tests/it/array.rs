//! Arrays on the host: making, reading, printing, weak numbers, operators, errors.

use half::{bf16, f16};
use mlx_core::io::SafetensorsFile;
use mlx_core::{
    Array, Complex32, Dtype, Element, Error, ErrorKind, Quantization, Result, Scalar, ops,
};

fn check_round_trip<T: Element + PartialEq + std::fmt::Debug>(values: &[T]) {
    let array = Array::from_slice(values, &[2, 2]).unwrap();
    assert_eq!((array.dtype(), array.shape(), array.size()), (T::DTYPE, &[2, 2][..], 4));
    assert_eq!(array.nbytes(), 4 * T::DTYPE.size());
    assert_eq!(array.to_vec::<T>().unwrap(), values);
    let [a, b, c, d] = values else { panic!("four values") };
    assert_eq!(array.t().unwrap().to_vec::<T>().unwrap(), [*a, *c, *b, *d]);
    assert_eq!(Array::from(*d).item::<T>().unwrap(), *d);
    let bytes = array.with_bytes(<[u8]>::to_vec).unwrap();
    let copy = Array::from_bytes(&bytes, &[4], T::DTYPE).unwrap();
    assert_eq!(copy.to_vec::<T>().unwrap(), values);
}

#[test]
fn every_element_type_round_trips() {
    check_round_trip(&[true, false, false, true]);
    check_round_trip(&[0u8, 1, 7, u8::MAX]);
    check_round_trip(&[0u16, 1, 7, u16::MAX]);
    check_round_trip(&[0u32, 1, 7, u32::MAX]);
    check_round_trip(&[0u64, 1, 7, u64::MAX]);
    check_round_trip(&[0i8, -1, i8::MIN, i8::MAX]);
    check_round_trip(&[0i16, -1, i16::MIN, i16::MAX]);
    check_round_trip(&[0i32, -1, i32::MIN, i32::MAX]);
    check_round_trip(&[0i64, -1, i64::MIN, i64::MAX]);
    check_round_trip(&[f16::from_f32(0.5), f16::MAX, f16::MIN_POSITIVE, f16::INFINITY]);
    check_round_trip(&[bf16::from_f32(0.5), bf16::MAX, bf16::MIN_POSITIVE, bf16::INFINITY]);
    check_round_trip(&[0.5f32, -0.25, f32::MAX, f32::NEG_INFINITY]);
    check_round_trip(&[0.5f64, -0.25, f64::MAX, f64::NEG_INFINITY]);
    let complex = |re, im| Complex32 { re, im };
    check_round_trip(&[
        complex(1.0, 2.0),
        complex(0.0, -1.0),
        complex(3.5, 0.0),
        complex(0.0, 0.0),
    ]);
}

#[test]
fn any_byte_reads_as_a_bool() {
    let bytes = Array::from_slice(&[0u8, 1, 2, 255], &[4]).unwrap();
    let bools = bytes.view(Dtype::Bool).unwrap();
    assert_eq!(bools.to_vec::<bool>().unwrap(), [false, true, true, true]);
}

#[test]
fn wrong_lengths_and_types_are_refused() {
    let refused = [
        Array::from_slice(&[1.0f32, 2.0], &[3]),
        Array::from_slice(&[1.0f32], &[])
            .and_then(|x| Array::from_slice(&[x.item::<f32>()?; 2], &[])),
        Array::from_slice::<f32>(&[], &[1]),
        Array::from_slice(&[1u8], &[-1]),
        Array::from_slice(&[1u8], &[-1, -1]),
        Array::from_slice::<u8>(&[], &[i32::MAX, i32::MAX, i32::MAX, i32::MAX]),
        Array::from_bytes(&[0; 7], &[2], Dtype::Float32),
        Array::from_bytes(&[0; 8], &[1], Dtype::Float32),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let x = Array::from_slice(&[1.0f32, 2.0], &[2]).unwrap();
    assert_eq!(
        x.to_vec::<i32>().unwrap_err().to_string(),
        "to_vec: array of float32 read as int32"
    );
    assert_eq!(x.to_vec_as::<i32>().unwrap(), [1, 2]);
    let error = x.item::<f32>().unwrap_err();
    assert_eq!(error.to_string(), "item: expected one element, got shape [2]");
    assert!(Array::from_slice::<f32>(&[], &[0]).unwrap().item::<f32>().is_err());
    assert!(x.at(0).unwrap().item::<i32>().is_err());
    assert_eq!(x.at(..1).unwrap().item::<f32>().unwrap(), 1.0);
}

#[test]
fn empty_arrays_are_arrays() {
    let empty = Array::from_slice::<f32>(&[], &[2, 0, 3]).unwrap();
    assert_eq!((empty.size(), empty.nbytes(), empty.ndim()), (0, 0, 3));
    assert_eq!(empty.to_vec::<f32>().unwrap(), [0.0; 0]);
    assert_eq!(empty.sum(.., false).unwrap().item::<f32>().unwrap(), 0.0);
    let row = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3]).unwrap();
    assert_eq!((&empty + &row).unwrap().shape(), [2, 0, 3]);
    assert_eq!(
        ops::concatenate([&empty, &ops::ones(&[2, 1, 3], Dtype::Float32).unwrap()], 1)
            .unwrap()
            .to_vec::<f32>()
            .unwrap(),
        [1.0; 6]
    );
}

#[test]
fn a_view_reads_in_its_own_order() {
    let x = Array::range(12).unwrap().reshape([3, 4]).unwrap();
    let view = x.at((mlx_core::Slice::step(-1), 1..3)).unwrap();
    assert_eq!(view.to_vec::<i32>().unwrap(), [9, 10, 5, 6, 1, 2]);
    assert_eq!(view.strides().unwrap(), [-4, 1]);
    let rows = x.at(0).unwrap().broadcast_to([2, 4]).unwrap();
    assert_eq!(rows.to_vec::<i32>().unwrap(), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(rows.strides().unwrap(), [0, 1]);
}

#[test]
fn prints_as_python_does() {
    let x = Array::from_slice(&[1.0f32, 2.5], &[2]).unwrap();
    assert_eq!(x.to_string(), "array([1, 2.5], dtype=float32)");
    assert_eq!(format!("{x:?}"), "Array([2], float32)");
    assert_eq!(Array::from(true).to_string(), "array(True, dtype=bool)");
    // What cannot be computed prints as its error and does not panic.
    let failing = failing_late();
    assert!(failing.to_string().starts_with('<'), "{failing}");
}

#[test]
fn a_clone_is_the_same_node() {
    let x = (Array::range(3).unwrap() + 1).unwrap();
    let y = x.clone();
    assert!(!x.is_available());
    x.eval().unwrap();
    assert!(y.is_available());
    assert_eq!(x.id(), y.id());
    assert_ne!(x.id(), (x + 0).unwrap().id());
    assert_eq!(y.to_vec::<i32>().unwrap(), [1, 2, 3]);
}

#[test]
fn dims_takes_exactly_as_many() {
    let x = ops::zeros(&[2, 3, 4], Dtype::Float32).unwrap();
    let [a, b, c] = x.dims().unwrap();
    assert_eq!([a, b, c], [2, 3, 4]);
    assert_eq!(x.dims::<2>().unwrap_err().to_string(), "expected 2 axes, got shape [2, 3, 4]");
    assert_eq!(Array::from(1).dims::<0>().unwrap(), [0; 0]);
    assert_eq!((x.dim(0).unwrap(), x.dim(-1).unwrap()), (2, 4));
    for axis in [3, -4, i32::MIN, i32::MAX] {
        assert_eq!(x.dim(axis).unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}

#[test]
fn numbers_are_weak() {
    use Dtype::{Bfloat16, Bool, Float16, Float32, Int32, Int64, Uint8};
    let of = |dtype| ops::ones(&[2], dtype).unwrap();
    for (result, dtype) in [
        (of(Bfloat16) * 2.0, Bfloat16),
        (2.0 * of(Bfloat16), Bfloat16),
        (of(Float16) + 1, Float16),
        (of(Int32) * 2.0, Float32),
        (of(Uint8) + 1, Uint8),
        (of(Uint8) / 2, Float32),
        (of(Bool) + 1, Int32),
        (of(Bool) * 0.5, Float32),
        (of(Bool).add(true), Bool),
        (of(Int64).subtract(1i64), Int64),
        (of(Int32).add(1.0f64), Float32),
        (ops::subtract(1, of(Bfloat16)), Bfloat16),
        (ops::add(Scalar::Int(1), Scalar::Float(0.5)), Float32),
        (ops::add(true, 1), Int32),
        (ops::maximum(of(Bfloat16), of(Float32)), Float32),
    ] {
        assert_eq!(result.unwrap().dtype(), dtype);
    }
    let error = (of(Uint8) + 300).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::OutOfRange, "300 is no uint8".into())
    );
    assert!((of(Uint8) + -1).is_err());
}

#[test]
fn operators_stand_on_both_sides() {
    let x = Array::from_slice(&[7.0f32, -7.0], &[2]).unwrap();
    let y = Array::from_slice(&[2.0f32, 4.0], &[2]).unwrap();
    let check = |result: Result<Array>, expected: [f32; 2]| {
        assert_eq!(result.unwrap().to_vec::<f32>().unwrap(), expected);
    };
    check(&x + &y, [9.0, -3.0]);
    check(&x - y.clone(), [5.0, -11.0]);
    check(x.clone() * &y, [14.0, -28.0]);
    check(x.clone() / y.clone(), [3.5, -1.75]);
    check(&x % &y, [1.0, 1.0]);
    check(&x % 4, [3.0, 1.0]);
    check(1.0 - &x, [-6.0, 8.0]);
    check(14.0 / x.clone(), [2.0, -2.0]);
    check(-&x, [-7.0, 7.0]);
    check(-x.clone(), [-7.0, 7.0]);
    // A result on the right, so that a formula reads as in Python.
    check(&x + (&y * 2.0), [11.0, 1.0]);
    check(&x * ((&y - 1.0).and_then(|z| z / 2)), [3.5, -10.5]);
    let failing = &x + Array::range(3).and_then(|z| x.add(z));
    assert_eq!(failing.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn an_error_keeps_its_text() {
    let x = Array::from(1.0f32);
    // Text of the caller's inside an exception of MLX: never a format.
    let nasty = "%s%s%s%s%n%n%p%1000000d";
    let error = ops::einsum(nasty, [&x]).unwrap_err();
    assert_eq!(error.to_string(), "einsum: Subscripts must be letters, but got '%'");
    let error = ops::einsum("i\0i", [&x]).unwrap_err();
    assert_eq!(error.to_string(), "einsum: NUL in subscripts");
    let error = Error::new(ErrorKind::Io, nasty).context(nasty);
    assert_eq!(error.to_string(), format!("{nasty}: {nasty}"));
}

/// An array whose op finds only while computing that it has no kernel.
fn failing_late() -> Array {
    let w = ops::ones(&[2, 64], Dtype::Float64).unwrap();
    let packed =
        mlx_core::with_device(mlx_core::Device::Cpu, || ops::quantize(&w, Quantization::default()));
    packed.unwrap().scales
}

#[test]
fn errors_tell_their_kind() {
    let x = ops::ones(&[2, 3], Dtype::Float32).unwrap();
    for (result, kind, start) in [
        (x.matmul(&x), ErrorKind::InvalidArgument, "matmul: "),
        (x.reshape([5]), ErrorKind::InvalidArgument, "reshape: "),
        (x.at(2), ErrorKind::OutOfRange, "index: "),
        (x.sort(7), ErrorKind::OutOfRange, "dim: "),
        (ops::zeros(&[-1], Dtype::Float32), ErrorKind::InvalidArgument, ""),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().starts_with(start), "{error}");
        assert!(!error.to_string().ends_with('.'), "{error}");
    }
    // One that shows only when computed.
    assert_eq!(failing_late().eval().unwrap_err().kind(), ErrorKind::Runtime);
    assert_eq!(mlx_core::eval([&failing_late()]).unwrap_err().kind(), ErrorKind::Runtime);
    assert_eq!(failing_late().to_vec_as::<f32>().unwrap_err().kind(), ErrorKind::Runtime);
    // And nothing of it clings to the next call.
    assert_eq!((&x + 1.0).unwrap().to_vec::<f32>().unwrap(), [2.0; 6]);
}

/// Writes two tensors to a file and opens it. MLX takes the size of a buffer from the bytes before
/// it: those before the second tensor are zero, which lets it reuse that buffer.
fn mapped(dir: &tempfile::TempDir) -> (SafetensorsFile, Vec<u8>) {
    use mlx_core::io::{TensorData, write_safetensors};
    let path = dir.path().join("x.safetensors");
    let bytes = |n: i32| (0..16).flat_map(|i| i32::to_ne_bytes(i * n)).collect::<Vec<u8>>();
    let tensor = |n| TensorData { dtype: Dtype::Int32, shape: vec![4, 4], bytes: bytes(n).into() };
    write_safetensors(&path, [("a", tensor(0)), ("b", tensor(1))], &[]).unwrap();
    let file = std::fs::read(&path).unwrap();
    (SafetensorsFile::open(&path).unwrap(), file)
}

#[test]
fn a_mapped_tensor_is_not_copied_and_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let (file, before) = mapped(&dir);
    let expected: Vec<i32> = (0..16).collect();
    let tensor = |name: &str| file.tensor_bytes(name).unwrap();
    let array = |name: &str| Array::from_tensor(&tensor(name), &[4, 4], Dtype::Int32).unwrap();

    let (a, b) = (array("a"), array("b"));
    if mlx_core::Device::default_device() == mlx_core::Device::Cpu {
        let shared = b.with_bytes(<[u8]>::as_ptr).unwrap() == tensor("b").as_slice().as_ptr();
        assert!(shared, "the tensor was copied");
    }

    // The only handle: MLX may put the result into the mapped pages, which are this process's own.
    let mut b = (b + 100).unwrap();
    b.eval().unwrap();
    b = (b * 3).unwrap();
    let raised: Vec<i32> = expected.iter().map(|x| 3 * (x + 100)).collect();
    assert_eq!(b.to_vec::<i32>().unwrap(), raised);
    assert_eq!(a.to_vec::<i32>().unwrap(), [0; 16]);
    // Another array over the same bytes still has what the file says.
    assert_eq!(array("b").to_vec::<i32>().unwrap(), expected);

    // The mapping outlives the file's handle, and the file is as it was.
    drop(file);
    let column = a.t().unwrap().at(1).unwrap();
    drop((a, b));
    assert_eq!(column.to_vec::<i32>().unwrap(), [0; 4]);
    assert_eq!(std::fs::read(dir.path().join("x.safetensors")).unwrap(), before);
}

#[test]
fn a_tensor_of_another_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = mapped(&dir);
    let tensor = file.tensor_bytes("a").unwrap();
    for (shape, dtype) in
        [(&[4, 5][..], Dtype::Int32), (&[4, 4], Dtype::Int64), (&[-4, -4], Dtype::Int32)]
    {
        let error = Array::from_tensor(&tensor, shape, dtype).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}
