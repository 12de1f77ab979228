//! Errors and panics in a transformed function reach the caller as what they were, and nothing of
//! them stays behind.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::slice::from_ref;

use mlx_core::transforms::{
    CompileMode, compile, grad, grad_once, jvp, set_compile_mode, value_and_grad,
    value_and_grad_once, vjp, vmap,
};
use mlx_core::{Array, Error, ErrorKind, Result, memory};

use crate::alone::alone;

type Transform = fn(Box<dyn Fn(&[Array]) -> Result<Vec<Array>>>, &Array) -> Result<Vec<Array>>;

/// Every transform of one function of one array.
const TRANSFORMS: [(&str, Transform); 6] = [
    ("vjp", |f, x| Ok(vjp(f, from_ref(x), from_ref(x))?.1)),
    ("jvp", |f, x| Ok(jvp(f, from_ref(x), from_ref(x))?.1)),
    ("grad", |f, x| grad(move |x| Ok(vec![f(x)?.remove(0).sum(.., false)?]), 0)?.call(from_ref(x))),
    ("grad_once", |f, x| grad_once(|x| Ok(vec![f(x)?.remove(0).sum(.., false)?]), from_ref(x), ..)),
    ("vmap", |f, x| vmap(f, &[0], &[0])?.call(from_ref(x))),
    ("compile", |f, x| compile(f, false)?.call(from_ref(x))),
];

fn floats(values: &[f32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

/// An error that this crate knows nothing of.
#[derive(Debug, PartialEq)]
struct Own(u32);

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "own error {}", self.0)
    }
}

impl std::error::Error for Own {}

#[test]
fn an_error_arrives_as_it_was() {
    let x = floats(&[1.0, 2.0]);
    for (name, transform) in TRANSFORMS {
        let fail = |_: &[Array]| Err(Error::new(ErrorKind::NotFound, "no %s here").context("%n"));
        let error = transform(Box::new(fail), &x).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        assert_eq!(error.to_string(), "%n: no %s here", "{name}");

        let error = transform(Box::new(|_| Err(Error::other(Own(7)))), &x).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other, "{name}");
        assert_eq!(error.downcast_ref::<Own>(), Some(&Own(7)), "{name}");
        assert_eq!(error.to_string(), "own error 7");
        assert!(std::error::Error::source(&error).is_some_and(|e| e.is::<Own>()));
        assert_eq!(error.context("layer 3").to_string(), "layer 3: own error 7");

        // MLX's own error inside keeps its kind and text too.
        let own = x.clone();
        let direct = x.reshape([5]).unwrap_err();
        let error = transform(Box::new(move |_| Ok(vec![own.reshape([5])?])), &x).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (direct.kind(), direct.to_string()));
    }
}

#[test]
fn errors_and_panics_pass_through_nested_transforms() {
    let x = floats(&[1.0, 2.0]);
    for (outer_name, outer) in TRANSFORMS {
        for (inner_name, inner) in TRANSFORMS {
            let at = format!("{outer_name} of {inner_name}");
            let fail = move |x: &[Array]| inner(Box::new(|_| Err(Error::other(Own(1)))), &x[0]);
            let error = outer(Box::new(fail), &x).unwrap_err();
            // Within vmap an element has no axis that another one could map.
            if (outer_name, inner_name) == ("vmap", "vmap") {
                assert!(error.to_string().contains("0 dimensions"), "{error}");
                continue;
            }
            assert_eq!(error.downcast_ref::<Own>(), Some(&Own(1)), "{at}: {error}");

            let panics = move |x: &[Array]| inner(Box::new(|_| panic_any(Own(2))), &x[0]);
            let payload = catch_unwind(AssertUnwindSafe(|| outer(Box::new(panics), &x)));
            assert_eq!(payload.unwrap_err().downcast_ref::<Own>(), Some(&Own(2)), "{at}");
        }
    }
}

#[test]
fn a_panic_goes_on_as_a_panic() {
    let x = floats(&[1.0]);
    for (name, transform) in TRANSFORMS {
        let payload = catch_unwind(AssertUnwindSafe(|| {
            transform(Box::new(|x| panic!("with {}", x.len())), &x)
        }));
        assert_eq!(payload.unwrap_err().downcast_ref::<String>().unwrap(), "with 1", "{name}");
        let error = x.reshape([5]).unwrap_err();
        assert!(error.to_string().starts_with("reshape: "), "{name}: {error}");
    }
}

#[test]
fn a_function_that_recovers_leaves_nothing_behind() {
    let x = floats(&[1.0]);
    for (name, transform) in TRANSFORMS {
        let y = grad_once(
            |x| {
                let fails = transform(Box::new(|_| Err(Error::other(Own(1)))), &floats(&[1.0]));
                assert!(fails.is_err(), "{name}");
                let panics = AssertUnwindSafe(|| {
                    transform(Box::new(|_| panic_any(Own(2))), &floats(&[1.0]))
                });
                assert!(catch_unwind(panics).is_err(), "{name}");
                Ok(vec![x[0].square()?.sum(.., false)?])
            },
            from_ref(&x),
            0,
        );
        assert_eq!(y.unwrap()[0].to_vec::<f32>().unwrap(), [2.0]);
        let error = x.reshape([5]).unwrap_err();
        assert!(error.to_string().starts_with("reshape: "), "{name}: {error}");
    }
}

/// Counts how often its owners are dropped.
#[derive(Clone)]
struct Token(Rc<Cell<usize>>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_function_is_dropped_once_whatever_ends_it() {
    type End = fn(&[Array]) -> Result<Vec<Array>>;
    let ends: [End; 3] =
        [|x| Ok(x.to_vec()), |_| Err(Error::other(Own(0))), |_| std::panic::panic_any(Own(0))];
    let x = floats(&[1.0, 2.0]);
    for (name, transform) in TRANSFORMS {
        for end in ends {
            let drops = Rc::new(Cell::new(0));
            let token = Token(drops.clone());
            let f = move |x: &[Array]| {
                let _ = &token;
                end(x)
            };
            let _ = catch_unwind(AssertUnwindSafe(|| transform(Box::new(f), &x)));
            assert_eq!((drops.get(), Rc::strong_count(&drops)), (1, 1), "{name}");
        }
    }
}

#[test]
fn a_panic_while_a_function_is_dropped_stays_in_its_place() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let bomb = Bomb;
    let f = grad(
        move |x| {
            let _ = &bomb;
            Ok(vec![x[0].sum(.., false)?])
        },
        0,
    );
    let y = f.unwrap().call(&[floats(&[1.0])]);
    assert_eq!(y.unwrap()[0].to_vec::<f32>().unwrap(), [1.0]);
}

#[test]
fn a_scoped_function_may_borrow() {
    let calls = Cell::new(0);
    let seen = RefCell::new(Vec::new());
    let scale = 3.0f32;
    let f = |x: &[Array]| {
        calls.set(calls.get() + 1);
        seen.borrow_mut().push(x[0].shape().to_vec());
        Ok(vec![(x[0].square()? * scale)?.sum(.., false)?])
    };
    let x = floats(&[1.0, 2.0]);
    let (values, gradients) = value_and_grad_once(f, from_ref(&x), 0).unwrap();
    assert_eq!(values[0].item::<f32>().unwrap(), 15.0);
    assert_eq!(gradients[0].to_vec::<f32>().unwrap(), [6.0, 12.0]);
    let (_, gradients) = vjp(f, from_ref(&x), &[Array::from(2.0f32)]).unwrap();
    assert_eq!(gradients[0].to_vec::<f32>().unwrap(), [12.0, 24.0]);
    let (_, changes) = jvp(f, from_ref(&x), from_ref(&x)).unwrap();
    assert_eq!(changes[0].item::<f32>().unwrap(), 30.0);
    assert_eq!(calls.get(), 3);
    assert_eq!(seen.into_inner(), vec![vec![2]; 3]);
}

#[test]
fn what_cannot_be_differentiated_is_refused() {
    let x = [floats(&[1.0, 2.0]), floats(&[3.0])];
    let text = |result: Result<(Vec<Array>, Vec<Array>)>| result.unwrap_err().to_string();
    let same = |x: &[Array]| Ok(x.to_vec());
    let scalar = |x: &[Array]| Ok(vec![x[0].sum(.., false)?]);
    let nothing = |_: &[Array]| Ok(Vec::new());
    let once = value_and_grad_once(same, &x, 0);
    assert_eq!(text(once), "grad: the first output has to be a scalar and has shape [2]");
    assert_eq!(text(value_and_grad_once(nothing, &x, 0)), "grad: the function returned nothing");
    let refused: &[(&[i32], &str)] = &[
        (&[2], "grad: argument 2 of 2"),
        (&[-3], "grad: argument -3 of 2"),
        (&[i32::MIN], "grad: argument -2147483648 of 2"),
        (&[i32::MAX], "grad: argument 2147483647 of 2"),
        (&[0, 0], "grad: arguments [0, 0] repeat"),
        (&[1, -1], "grad: arguments [1, 1] repeat"),
        (&[], "grad: no argument to differentiate by"),
    ];
    for &(argnums, expected) in refused {
        assert_eq!(text(value_and_grad_once(scalar, &x, argnums)), expected);
        assert_eq!(text(value_and_grad(scalar, argnums).unwrap().call(&x)), expected);
    }
    assert!(value_and_grad_once(scalar, &[], ..).is_err());
    assert!(text(vjp(same, &x, &[])).contains("cotangents"));
    let three = [x[0].clone(), x[1].clone(), x[0].clone()];
    assert_eq!(text(vjp(same, &x, &three)), "vjp: 3 cotangents for 2 outputs");
    assert!(text(vjp(same, &x, &[x[1].clone(), x[0].clone()])).starts_with("vjp: "));
    assert_eq!(text(jvp(same, &x, &x[..1])), "jvp: 1 tangents for 2 primals");
    let swapped = [x[1].clone(), x[0].clone()];
    assert_eq!(text(jvp(same, &x, &swapped)), "jvp: tangent 0 [1], its primal [2]");
}

#[test]
fn gradients_come_in_the_order_asked_for() {
    let x: Vec<Array> = [2.0f32, 3.0, 5.0].map(Array::from).to_vec();
    let f = |x: &[Array]| Ok(vec![((&x[0] * &x[1])? * &x[2])?, x[0].clone()]);
    for (argnums, expected) in
        [(&[2, 0][..], vec![6.0, 15.0]), (&[-2], vec![10.0]), (&[1, 2, 0], vec![10.0, 6.0, 15.0])]
    {
        let (values, gradients) = value_and_grad(f, argnums).unwrap().call(&x).unwrap();
        assert_eq!(values.len(), 2);
        let got: Vec<f32> = gradients.iter().map(|g| g.item().unwrap()).collect();
        assert_eq!(got, expected);
    }
}

#[test]
fn nothing_stays_after_thousands_of_transforms() {
    alone("transforms::failures::nothing_stays_after_thousands_of_transforms", || {
        set_compile_mode(CompileMode::NoFuse).unwrap();
        let x = floats(&[1.0, 2.0]);
        x.eval().unwrap();
        let token = Rc::new(());
        let churn = || {
            for (_, transform) in TRANSFORMS {
                for end in 0..3 {
                    let own = token.clone();
                    let big = mlx_core::ops::full(&[1 << 12], 2.0f32, None).unwrap();
                    big.eval().unwrap();
                    let f = move |x: &[Array]| {
                        let _ = &own;
                        match end {
                            0 => Ok(vec![(&x[0] * big.max(.., false)?)?]),
                            1 => Err(Error::other(Own(0))),
                            _ => std::panic::resume_unwind(Box::new(big.size())),
                        }
                    };
                    let result = catch_unwind(AssertUnwindSafe(|| transform(Box::new(f), &x)));
                    if let Ok(Ok(outputs)) = result {
                        mlx_core::eval(&outputs).unwrap();
                    }
                }
            }
            memory::clear_cache().unwrap();
            memory::active().unwrap()
        };
        let start = churn();
        for _ in 0..300 {
            assert_eq!(churn(), start);
        }
        assert_eq!(Rc::strong_count(&token), 1);
    });
}

#[test]
fn a_graph_may_be_deep() {
    // As deep as a long loop; MLX takes a stack frame for each op, and a test has 2 MiB.
    let deep = |x: &[Array]| -> Result<Vec<Array>> {
        let mut y = x[0].clone();
        for _ in 0..50_000 {
            y = y.negative()?;
        }
        Ok(vec![y])
    };
    let x = Array::from(3.0f32);
    let gradients = grad_once(deep, from_ref(&x), 0).unwrap();
    assert_eq!(gradients[0].item::<f32>().unwrap(), 1.0);
    assert_eq!(jvp(deep, from_ref(&x), from_ref(&x)).unwrap().1[0].item::<f32>().unwrap(), 3.0);
    let two = floats(&[1.0, 2.0]);
    let mapped = vmap(deep, 0, 0).unwrap().call(from_ref(&two)).unwrap();
    assert_eq!(mapped[0].to_vec::<f32>().unwrap(), [1.0, 2.0]);
    let compiled = compile(deep, false).unwrap().call(from_ref(&two)).unwrap();
    assert_eq!(compiled[0].to_vec::<f32>().unwrap(), [1.0, 2.0]);
    let names = mlx_core::transforms::graph::Names::new();
    let text = mlx_core::transforms::graph::print_graph(&names, &deep(&[x]).unwrap()).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("Negative")).count(), 50_000);
}
