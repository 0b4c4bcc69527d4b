"""KORE in trl's SFTTrainer: hand it the constrained model, and no peft_config.

pip install trl
python examples/trl_sft.py --steps 40
"""

import argparse
import importlib.util
import sys
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

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
    if importlib.util.find_spec("trl") is None:
        print("trl is not installed: pip install trl")
        sys.exit()
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForImageTextToText.from_pretrained(options.model)
    processor = AutoProcessor.from_pretrained(options.model)
    covariance = kore.calibrate(model, processor, OLD)
    model = kore.get_kore_model(model, covariance, rank=16)

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder,
            max_steps=options.steps,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        )
        data = Dataset.from_dict({"text": NEW})
        trainer = SFTTrainer(model, config, train_dataset=data, processing_class=processor.tokenizer)
        result = trainer.train()
    print(f"loss {result.training_loss:.3f} after {result.global_step} steps")
    frozen = [p for name, p in trainer.model.named_parameters() if "lora_A" in name]
    print(f"{len(frozen)} A matrices, trainable: {any(p.requires_grad for p in frozen)}")


if __name__ == "__main__":
    main()
