//! A program on mlx-lm alone: a chat template's text, and greedy tokens of a model directory.

use mlx_lm::chat::{ChatTemplate, Message, RenderOptions};
use mlx_lm::files::ModelFiles;
use mlx_lm::generate::{GenerateOptions, TokenSession};
use mlx_lm::load::{LoadOptions, Model};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let messages = [Message::system("Be brief."), Message::user("What is the capital of France?")];
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    print!("{}", ChatTemplate::new(CHATML).render(&messages, None, &options)?);

    let fixtures = std::env::args().nth(1).ok_or("usage: on-mlx-lm FIXTURES")?;
    let checkpoint = format!("{fixtures}/data/mlx-lm/checkpoints/qwen3-f32");
    let (model, notes) = Model::load(&ModelFiles::directory(checkpoint)?, &LoadOptions::default())?;
    for note in notes {
        eprintln!("note: {note}");
    }

    let prompt = [56, 125, 4, 55, 105, 18, 67, 7, 26];
    let options = GenerateOptions { max_tokens: Some(8), ..GenerateOptions::default() };
    let mut session = TokenSession::new(&model);
    let tokens: Vec<u32> = session.generate(&prompt, &options)?.collect::<Result<_, _>>()?;
    println!("greedy: {tokens:?}");
    Ok(())
}
