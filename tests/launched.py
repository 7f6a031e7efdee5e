"What tests/test_scale.py runs under `accelerate launch`: python launched.py JOB RUN [resume|kill]"
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from thinkact_nb import algorithms, ledger, rft, sft, trainer, turn_rl
from thinkact_nb.env import Stopped, get_profile
from thinkact_nb.store import Store
from thinkact_nb.pool import SimPool

PROFILE = replace(get_profile('tiny'), max_new_tokens=12, sft_learning_rate=1e-4, rl_batch=8, rl_micro_batch=4, eval_batch=18)


def train_sft(run, rows):
    "20 steps without dropout, batches of `rows` in each process; the weights go to a file."
    store = Store(run, replace(PROFILE, sft_batch=rows, sft_micro_batch=rows))
    made = sft.make_trainer(store, steps=20, every=20, validation=2)
    for module in made.model.modules():
        if isinstance(module, torch.nn.Dropout): module.p = 0.
    made.train()
    if made.accelerator.is_main_process: save_file({n: p.detach().clone() for n, p in made.model.named_parameters() if p.requires_grad}, Path(run)/'weights.safetensors')


def train_ppo(run, how):
    "Three updates. The adapter is untrained and no text is right, so a text's reward is its length, modulo 7."
    store = Store(run, PROFILE)
    algorithms.SAVE_EVERY = 1
    judge = ledger.judge
    ledger.judge = lambda *args: [replace(e, reward=len(e.output) % 7 / 7) for e in judge(*args)]
    if how == 'kill' and os.environ['RANK'] == '1':
        world, calls = ledger.Ledger.judged, []
        def die(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 2: os.kill(os.getpid(), signal.SIGTERM)
            return world(self, *args, **kwargs)
        ledger.Ledger.judged = die
    with SimPool(0) as pool:
        try: trainer.train_rl(store, pool, updates=3, resume=how == 'resume')
        except Stopped as stopped: print('stopped:', stopped)


def train_turns(run, how):
    "Two updates on turns; what an episode earned is the length of its last text, modulo 7."
    algorithms.SAVE_EVERY, plain = 1, turn_rl.as_episode
    turn_rl.as_episode = lambda scene, text, *args: replace(plain(scene, text, *args), reward=len(text) % 7 / 7)
    with SimPool(0) as pool: turn_rl.train_turns(Store(run, PROFILE), pool, updates=int(how), resume=True)


def train_rft(run, how):
    "A round of six scenes in three parts, and two steps."
    store = Store(run, replace(PROFILE, sft_batch=4, sft_micro_batch=2, max_new_tokens=60))
    with SimPool(0) as pool: rft.train_rft(store, pool, rft.drawn_with(store, scenes=6, texts=8, tasks=('put_on',)), steps=2, every=2, validation=2)


if __name__ == '__main__':
    job, run, how = sys.argv[1:]
    dict(sft=lambda: train_sft(run, int(how)), ppo=lambda: train_ppo(run, how), turns=lambda: train_turns(run, how), rft=lambda: train_rft(run, how))[job]()
