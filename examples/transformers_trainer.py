"""KORE in transformers.Trainer: protect what a model answers now, then fine-tune it on new text.

python examples/transformers_trainer.py --steps 40
"""

import argparse
import tempfile

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

import kore
from kore.models.load import embedded_base

OLD = [
    {"messages": [{"role": "user", "content": question}]}
    for question in (
        "What is the capital of France?",
        "What is the capital of Italy?",
        "Name a country in Asia.",
    )
]
NEW = ["USER: What is the capital of Peru? ASSISTANT: Lima", "USER: Where is Lima? ASSISTANT: In Peru"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(embedded_base()), help="a folder or a hub id")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(options.model)
    processor = AutoProcessor.from_pretrained(options.model)
    tokenizer = processor.tokenizer

    # samples may also be a JSONL file; within `memory`, however large the model is
    covariance = kore.calibrate(model, processor, OLD, memory="2GiB")
    model = kore.get_kore_model(model, covariance, rank=16)
    model.print_trainable_parameters()

    rows = [tokenizer(text, return_tensors="pt")["input_ids"][0] for text in NEW]
    data = [{"input_ids": row, "labels": row} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=options.steps,
            per_device_train_batch_size=1,
            learning_rate=1e-2,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        result = Trainer(model, arguments, train_dataset=data).train()
        print(f"loss {result.training_loss:.3f} after {result.global_step} steps")
        model.save_pretrained(folder)  # an ordinary PEFT folder

    frozen = [p for name, p in model.named_parameters() if "lora_A" in name]
    print(f"{len(frozen)} A matrices, trainable: {any(p.requires_grad for p in frozen)}")
    inputs = tokenizer("USER: What is the capital of Peru? ASSISTANT:", return_tensors="pt").to(model.device)
    with torch.no_grad():
        ids = model.eval().generate(**inputs, max_new_tokens=8)
    print(tokenizer.decode(ids[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
