"""KORE's constraint on a model built by hand, trained by a loop of your own.

    python examples/constraint_on_your_model.py --steps 200

The model first learns one task, then another one. With KORE it keeps the first.
"""

import argparse

import torch
from torch import nn
from torch.nn.functional import mse_loss

import kore


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 128)
        self.middle = nn.Linear(128, 128)
        self.down = nn.Linear(128, 4)

    def forward(self, x):
        return self.down(torch.relu(self.middle(torch.relu(self.up(x)))))


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, lr: float) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        mse_loss(model(x), y).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    # two tasks, whose inputs lie in different directions
    old_x, new_x = torch.randn(256, 8) @ torch.randn(8, 32), torch.randn(64, 8) @ torch.randn(8, 32)
    old_y, new_y = torch.sin(old_x[:, :4]), torch.cos(new_x[:, :4])
    model = Net()
    train(model, old_x, old_y, steps, 1e-3)
    print(f"first task before: {mse_loss(model(old_x), old_y):.4f}")

    # 1. what must not change: the inputs of every linear, over the first task's data
    covariance = kore.collect_covariance(model, lambda: model(old_x))
    # 2. a PeftModel: A is frozen where those inputs carry least energy, only B is trained
    tuned = kore.get_kore_model(model, covariance, keep=0.999)
    # 3. your own loop
    train(tuned, new_x, new_y, steps, 1e-2)

    with torch.no_grad():
        print(f"first task after:  {mse_loss(tuned(old_x), old_y):.4f}")
        print(f"second task:       {mse_loss(tuned(new_x), new_y):.4f}")
        with tuned.disable_adapter():
            print(f"second task, base: {mse_loss(tuned(new_x), new_y):.4f}")


if __name__ == "__main__":
    main()
