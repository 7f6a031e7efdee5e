"""How PyTorch's threads should wait for one another: a training step of the stand-in, alone and beside busy processes.

    python tools/wait_policy.py                                               # 13 minutes on two cores
    python tools/wait_policy.py --out thinkact_nb/tables/wait_policy.json     # the table of 00_env

Each cell is a process of its own, since the policy counts only if it is set before torch is imported. The machine must be idle otherwise."""
import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
import tyro

POLICIES = {"default": {}, "short spin": dict(GOMP_SPINCOUNT="10000"), "passive": dict(OMP_WAIT_POLICY="PASSIVE"),
            "one thread": dict(OMP_NUM_THREADS="1")}
BUSY = (0, 1, 5)  # other processes per core
SECONDS = 20

STEP = """
import os, sys, time
import numpy as np, torch
from thinkact_nb.tasks import spread
from thinkact_nb.language import expert
from thinkact_nb.env import get_profile
from thinkact_nb.family import chat, load_processor
from thinkact_nb.model import load_model
from PIL import Image
profile = get_profile("tiny")
torch.manual_seed(0)
model, processor = load_model(profile, trainable=True).train(), load_processor(profile)
scenes = spread(16)
texts = [processor.apply_chat_template(chat(s.instruction), tokenize=False, add_generation_prompt=True) + expert(s) for s in scenes]
images = [[Image.fromarray(np.random.default_rng(i).integers(0, 255, (128, 128, 3), np.uint8))] for i in range(16)]
batch = processor(text=texts, images=images, add_special_tokens=False, padding=True, return_tensors="pt")
batch["labels"] = batch["input_ids"].clone()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
def step():
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
step()
steps, start = 0, time.time()
while time.time() - start < float(sys.argv[1]):
    step()
    steps += 1
print(steps / (time.time() - start))
"""


def spin():
    "A process that never rests."
    while True:
        pass


def rate(policy, busy):
    "Training steps a second."
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(busy * os.cpu_count())]
    for other in others:
        other.start()
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    # the package sets a short spin where nothing is set: spinning without end is libgomp's own default
    env |= POLICIES[policy] or dict(GOMP_SPINCOUNT="30000000000")
    done = subprocess.run([sys.executable, "-c", STEP, str(SECONDS)], env=env, capture_output=True, text=True, encoding="utf-8")
    for other in others:
        other.kill()
    return float(done.stdout.split()[-1])


@dataclass
class Settings:
    "Where the table goes."
    out: Path | None = None


def main(settings: Settings):
    start, table = time.time(), {}
    for policy in POLICIES:
        table[policy] = {str(busy): round(rate(policy, busy), 3) for busy in BUSY}
        print(policy, json.dumps(table[policy]), flush=True)
    result = dict(steps_per_second=table, cores=os.cpu_count(), seconds=round(time.time() - start))
    print(json.dumps(result))
    if settings.out:
        settings.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Settings))
