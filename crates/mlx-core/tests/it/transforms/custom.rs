//! Functions with rules of their own, and checkpoints: what is called, what is refused, and that
//! what they own goes when the graph goes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::slice::from_ref;

use mlx_core::transforms::{
    CompileMode, checkpoint, compile, custom_function, grad, grad_once, jvp, set_compile_mode, vjp,
    vmap_once,
};
use mlx_core::{Array, Error, ErrorKind, Result};

type Function = dyn Fn(&[Array]) -> Result<Vec<Array>>;

fn floats(values: &[f32]) -> Array {
    Array::from_slice(values, &[values.len() as i32]).unwrap()
}

#[test]
fn the_rules_given_are_used() {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let log = |what: &'static str| {
        let calls = calls.clone();
        move || calls.borrow_mut().push(what)
    };
    let (on_call, on_vjp, on_jvp, on_vmap) = (log("f"), log("vjp"), log("jvp"), log("vmap"));
    let f = custom_function(move |x| {
        on_call();
        Ok(vec![(&x[0] * &x[1])?])
    })
    .vjp(move |primals, cotangents, outputs| {
        on_vjp();
        assert_eq!((primals.len(), cotangents.len(), outputs.len()), (2, 1, 1));
        Ok(vec![(&cotangents[0] * 100.0)?, (&cotangents[0] * &outputs[0])?])
    })
    .jvp(move |primals, tangents| {
        on_jvp();
        assert_eq!((primals.len(), tangents.len()), (2, 2));
        assert!(tangents[0].is_some());
        Ok(vec![(tangents[0].as_ref().unwrap() * 7.0)?])
    })
    .vmap(move |inputs, axes| {
        on_vmap();
        assert_eq!(axes, [Some(1), None]);
        Ok((vec![(&inputs[0] + 0.5)?], vec![-1]))
    })
    .build()
    .unwrap();
    let (x, y) = (floats(&[2.0]), floats(&[3.0]));
    let both = [x.clone(), y.clone()];
    assert_eq!(f.call(&both).unwrap()[0].to_vec::<f32>().unwrap(), [6.0]);
    let (_, gradients) = vjp(|x| f.call(x), &both, &[floats(&[1.0])]).unwrap();
    assert_eq!(gradients[0].to_vec::<f32>().unwrap(), [100.0]);
    assert_eq!(gradients[1].to_vec::<f32>().unwrap(), [6.0]);
    let (_, changes) =
        jvp(|x| f.call(&[x[0].clone(), y.clone()]), &[x], &[floats(&[1.0])]).unwrap();
    assert_eq!(changes[0].to_vec::<f32>().unwrap(), [7.0]);
    let table = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    let mapped =
        vmap_once(|x| f.call(x), &[table, y], &[Some(1), None], 0).unwrap()[0].to_vec::<f32>();
    assert_eq!(mapped.unwrap(), [1.5, 3.5, 2.5, 4.5]);
    let expected = ["f", "f", "vjp", "f", "jvp", "f", "vmap"];
    assert_eq!(*calls.borrow(), expected);
}

#[test]
fn missing_rules_are_derived() {
    let plain = |x: &[Array]| Ok(vec![(x[0].sin()? * &x[0])?]);
    let x = floats(&[0.3, -1.2]);
    let ones = floats(&[1.0, 1.0]);
    // Only a rule that is not asked for.
    let f = custom_function(plain).vmap(|_, _| panic!("not asked for")).build().unwrap();
    let g = custom_function(plain).vjp(|_, _, _| panic!("not asked for")).build().unwrap();
    let bare = custom_function(plain).build().unwrap();
    let close = |a: &Array, b: &Array| {
        assert!(a.allclose(b, Default::default()).unwrap().item::<bool>().unwrap(), "{a} {b}");
    };
    let expected = vjp(plain, from_ref(&x), from_ref(&ones)).unwrap().1;
    close(&vjp(|x| f.call(x), from_ref(&x), from_ref(&ones)).unwrap().1[0], &expected[0]);
    close(&vjp(|x| bare.call(x), from_ref(&x), from_ref(&ones)).unwrap().1[0], &expected[0]);
    close(&jvp(|x| g.call(x), from_ref(&x), from_ref(&ones)).unwrap().1[0], &expected[0]);
    close(&vmap_once(|x| g.call(x), from_ref(&x), 0, 0).unwrap()[0], &plain(&[x]).unwrap()[0]);
}

#[test]
fn results_that_mlx_would_read_past_are_refused() {
    type Rule = fn(&[Array], &[Array], &[Array]) -> Result<Vec<Array>>;
    let x = floats(&[1.0, 2.0]);
    let same = |x: &[Array]| Ok(vec![x[0].square()?]);
    let rules: [(Rule, &str); 4] = [
        (|_, _, _| Ok(vec![]), "vjp rule: 0 gradients for 1 primals"),
        (|_, c, _| Ok(vec![c[0].clone(), c[0].clone()]), "vjp rule: 2 gradients for 1 primals"),
        (|_, c, _| Ok(vec![c[0].sum(.., false)?]), "vjp rule: gradient 0 [], its primal [2]"),
        (|_, _, _| Err(Error::new(ErrorKind::Io, "own")), "own"),
    ];
    for (rule, expected) in rules {
        let f = custom_function(same).vjp(rule).build().unwrap();
        let error = vjp(|x| f.call(x), from_ref(&x), from_ref(&x)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let f = custom_function(same).jvp(|_, _| Ok(vec![])).build().unwrap();
    let error = jvp(|x| f.call(x), from_ref(&x), from_ref(&x)).unwrap_err();
    assert_eq!(error.to_string(), "jvp rule: 0 results for 1 outputs");
    let f = custom_function(same).jvp(|p, _| Ok(vec![p[0].clone(); 3])).build().unwrap();
    assert!(jvp(|x| f.call(x), from_ref(&x), from_ref(&x)).is_err());
    for (axes, n) in [(vec![1], 1), (vec![-2], 1), (vec![0, 0], 1), (vec![], 1), (vec![0, 0], 2)] {
        let f = custom_function(same)
            .vmap(move |x, _| Ok((vec![x[0].clone(); n], axes.clone())))
            .build()
            .unwrap();
        let error = vmap_once(|x| f.call(x), from_ref(&x), 0, 0).unwrap_err();
        assert!(error.to_string().starts_with("vmap rule: "), "{error}");
    }
    // MLX looks at the first output without asking whether there is one.
    let nothing = |_: &[Array]| Ok(vec![]);
    let f = custom_function(nothing).vjp(|_, c, _| Ok(c.to_vec())).build().unwrap();
    assert!(f.call(from_ref(&x)).unwrap_err().to_string().starts_with("custom_function: "));
    let f = checkpoint(nothing).unwrap();
    assert!(f.call(from_ref(&x)).unwrap_err().to_string().starts_with("checkpoint: "));
}

#[test]
fn a_checkpoint_computes_again_and_gives_the_same() {
    let count = Rc::new(Cell::new(0));
    let counter = count.clone();
    let block = move |x: &[Array]| {
        counter.set(counter.get() + 1);
        Ok(vec![(x[0].sin()?.exp()? * &x[1])?.tanh()?])
    };
    let plain = block.clone();
    let checkpointed = checkpoint(block).unwrap();
    let (x, w) = (floats(&[0.1, 0.7, -2.0]), floats(&[1.5, -0.5, 0.25]));
    let loss = |y: Vec<Array>| Ok(vec![y[0].sum(.., false)?]);
    let both = [x, w];
    let expected = grad_once(|x| loss(plain(x)?), &both, ..).unwrap();
    count.set(0);
    let got = grad_once(|x| loss(checkpointed.call(x)?), &both, ..).unwrap();
    assert_eq!(count.get(), 2, "once forwards, once for the gradient");
    for (a, b) in expected.iter().zip(&got) {
        assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
    }
}

#[test]
fn what_a_function_owns_goes_with_the_graph() {
    let token = Rc::new(());
    for kind in 0..3 {
        let own = token.clone();
        let f: Box<Function> = match kind {
            0 => {
                let f = checkpoint(move |x| {
                    let _ = &own;
                    Ok(vec![x[0].exp()?])
                });
                let f = f.unwrap();
                Box::new(move |x| f.call(x))
            }
            1 => {
                let (a, b, c, d) = (own.clone(), own.clone(), own.clone(), own);
                let f = custom_function(move |x| {
                    let _ = &a;
                    Ok(vec![x[0].exp()?])
                })
                .vjp(move |_, c, _| {
                    let _ = &b;
                    Ok(c.to_vec())
                })
                .jvp(move |p, _| {
                    let _ = &c;
                    Ok(p.to_vec())
                })
                .vmap(move |x, _| {
                    let _ = &d;
                    Ok((x.to_vec(), vec![0]))
                })
                .build()
                .unwrap();
                Box::new(move |x| f.call(x))
            }
            _ => {
                let f = grad(
                    move |x| {
                        let _ = &own;
                        Ok(vec![x[0].exp()?.sum(.., false)?])
                    },
                    0,
                );
                let f = f.unwrap();
                Box::new(move |x| f.call(x))
            }
        };
        let y = f(&[floats(&[1.0, 2.0])]).unwrap();
        let z = y[0].square().unwrap();
        assert!(Rc::strong_count(&token) > 1);
        drop((f, y));
        if kind < 2 {
            assert!(Rc::strong_count(&token) > 1, "the graph still needs the rules");
        }
        z.eval().unwrap();
        assert_eq!(Rc::strong_count(&token), 1, "kind {kind}");
        drop(z);
        assert_eq!(Rc::strong_count(&token), 1);
    }
}

#[test]
fn rules_work_under_other_transforms() {
    set_compile_mode(CompileMode::NoFuse).unwrap();
    let twice = custom_function(|x| Ok(vec![(&x[0] * 2.0)?]))
        .vjp(|_, c, _| Ok(vec![(&c[0] * 10.0)?]))
        .build()
        .unwrap();
    let twice = Rc::new(twice);
    let slope = {
        let twice = twice.clone();
        move |x: &[Array]| grad_once(|x| Ok(vec![twice.call(x)?.remove(0).sum(.., false)?]), x, 0)
    };
    let x = floats(&[1.0, 2.0]);
    let compiled = compile(slope.clone(), false).unwrap();
    assert_eq!(compiled.call(from_ref(&x)).unwrap()[0].to_vec::<f32>().unwrap(), [10.0, 10.0]);
    let mapped = vmap_once(&slope, from_ref(&x), 0, 0).unwrap();
    assert_eq!(mapped[0].to_vec::<f32>().unwrap(), [10.0, 10.0]);
}
