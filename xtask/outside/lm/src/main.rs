//! A program on mlx-lm alone.

use mlx_lm::Result;
use mlx_lm::chat::{ChatTemplate, Message, RenderOptions};
use mlx_lm::stop::StopStrings;

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn main() -> Result<()> {
    let messages = [Message::system("Be brief."), Message::user("What is the capital of France?")];
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    print!("{}", ChatTemplate::new(CHATML).render(&messages, None, &options)?);

    // Text as a model might give it, piece by piece.
    let mut stop = StopStrings::new(["<|im_end|>"]);
    for piece in ["Par", "is.<|im", "_end|>", "not shown"] {
        print!("{}", stop.push(piece));
    }
    println!("{}", stop.finish());
    Ok(())
}
