//! A program on mlx-core alone.

use mlx_core::ops::quantize;
use mlx_core::{Array, QuantMode, Quantization, Result};

fn main() -> Result<()> {
    let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
    let y = (x.matmul(&x)? * 0.5)?;
    println!("x·x/2 has the shape {:?} and holds {:?}", y.shape(), y.to_vec::<f32>()?);

    // A layer's weight in 4 bits, and the product with it.
    let w = Array::from_slice(&[0.5f32; 64 * 4], &[4, 64])?;
    let packed = quantize(&w, Quantization::of(QuantMode::Affine))?;
    let ones = Array::from_slice(&[1.0f32; 64], &[1, 64])?;
    println!("1·wᵀ from 4 bits is {:?}", packed.matmul(&ones, true)?.to_vec::<f32>()?);

    match x.matmul(&ones) {
        Ok(_) => println!("this should not fit"),
        Err(e) => println!("what does not fit is an error of kind {:?}", e.kind()),
    }
    Ok(())
}
