//! Rows that NumPy wrote: masks, index arrays and everything else in one index.

use mlx_core::{
    Array, Device, Dtype, Ellipsis, IndexItem, NewAxis, Result, Slice, ops, with_device,
};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<i32> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        _ => vec![value.as_i64().unwrap() as i32],
    }
}

fn array(data: &Value, shape: &Value, dtype: Dtype) -> Array {
    Array::from_slice(&numbers(data), &numbers(shape)).unwrap().astype(dtype).unwrap()
}

fn item(spec: &Value) -> IndexItem {
    match spec {
        Value::Bool(truth) => (*truth).into(),
        Value::Number(position) => (position.as_i64().unwrap() as i32).into(),
        Value::String(name) if name == "newaxis" => NewAxis.into(),
        Value::String(_) => Ellipsis.into(),
        Value::Array(slice) => {
            let at = |i: usize| slice[i].as_i64().map(|position| position as i32);
            Slice { start: at(0), stop: at(1), step: at(2).unwrap_or(1) }.into()
        }
        _ if spec.get("mask").is_some() => {
            known(array(&spec["mask"], &spec["shape"], Dtype::Bool)).into()
        }
        _ => {
            let dtype = Dtype::from_name(spec["dtype"].as_str().unwrap()).unwrap();
            known(array(&spec["ints"], &spec["shape"], dtype)).into()
        }
    }
}

/// Reads an array once, so that the host has its values and refuses what NumPy refuses.
fn known(array: Array) -> Array {
    array.with_bytes(|_| ()).unwrap();
    array
}

fn index(row: &Value) -> Vec<IndexItem> {
    row["index"].as_array().unwrap().iter().map(item).collect()
}

/// The array that a row is about: it holds its own positions.
fn x(row: &Value) -> Result<Array> {
    let shape = numbers(&row["shape"]);
    Array::range(shape.iter().product())?.reshape(shape)
}

fn check(rows: &str, run: impl Fn(&Value) -> Result<Value>) {
    let all = fixtures::json("mlx-core/indexing.json");
    let checked = with_device(Device::Cpu, || {
        let mut failures = Vec::new();
        for row in all[rows].as_array().unwrap() {
            match run(row) {
                Ok(out) if out == row["out"] => {}
                Err(_) if row["out"].is_null() => {}
                other => failures.push(format!("gave {other:?}: {row}")),
            }
        }
        assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn reads() {
    check("reads", |row| {
        let out = x(row)?.at(index(row))?;
        Ok(serde_json::json!({"shape": out.shape(), "data": out.to_vec::<i32>()?}))
    });
}

#[test]
fn writes() {
    check("writes", |row| {
        let value = array(&row["value"]["data"], &row["value"]["shape"], Dtype::Int32);
        let (x, index) = (x(row)?, index(row));
        let out = match row["op"].as_str().unwrap() {
            "put" => x.put(index, &value),
            "put_add" => x.put_add(index, &value),
            "put_subtract" => x.put_subtract(index, &value),
            "put_multiply" => x.put_multiply(index, &value),
            "put_maximum" => x.put_maximum(index, &value),
            "put_minimum" => x.put_minimum(index, &value),
            other => panic!("{other}"),
        };
        Ok(out?.to_vec::<i32>()?.into())
    });
}

#[test]
fn positions() {
    let all = fixtures::json("mlx-core/indexing.json");
    let checked = with_device(Device::Cpu, || {
        for row in all["positions"].as_array().unwrap() {
            let mask = array(&row["mask"]["mask"], &row["mask"]["shape"], Dtype::Bool);
            let nonzero = ops::nonzero(&mask)?;
            for (actual, expected) in nonzero.iter().zip(row["nonzero"].as_array().unwrap()) {
                assert_eq!(actual.to_vec::<i32>()?, numbers(expected));
            }
            let rows = ops::argwhere(&mask)?;
            assert_eq!(rows.shape(), numbers(&row["argwhere"]["shape"]));
            assert_eq!(rows.to_vec::<i32>()?, numbers(&row["argwhere"]["data"]));
            let flat = ops::flatnonzero(&mask)?;
            assert_eq!(flat.to_vec::<i32>()?, numbers(&row["flatnonzero"]));
        }
        Ok(())
    });
    checked.unwrap();
}
