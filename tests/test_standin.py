"The stand-in's pretraining, at toy size: killed and called again, it ends with the same weights."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
SMALL = '--images 24 --few 8 --vision-steps 2 --caption-steps 4 --batch 2 --turns 2 --every 2 --tables 0'.split()
SMALL += '--drill-steps 1 --reason-steps 4 --quantized-from 2 --reason-length 100'.split()


def start(folder):
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', TQDM_DISABLE='1')
    words = [sys.executable, str(ROOT/'tools'/'pretrain_standin.py'), '--folder', str(folder/'out'), '--work', str(folder/'work'), *SMALL]
    return subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding='utf-8')


def ended(process):
    _, said = process.communicate(timeout=240)
    assert not process.returncode, said[-2000:]


@pytest.mark.long
def test_a_killed_pretraining_goes_on_to_the_same_weights(tmp_path):
    "Guard: `Run.keep` and `Run.again`, and batches drawn from the number of the step. NF4 begins after the kill, in both stages at step 3 of 4."
    whole, broken = tmp_path/'whole', tmp_path/'broken'
    ended(start(whole))
    for stage, steps in (('CaptionStage', 4), ('ReasonStage', 4)):
        process, kept = start(broken), broken/'work'/f'{stage}.pt'
        until = time.time() + 200
        while not kept.exists() and process.poll() is None and time.time() < until: time.sleep(.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kept.exists() and not (broken/'out'/'model.safetensors').exists()
        assert torch.load(kept, weights_only=True)['step'] < steps
    ended(start(broken))
    one, other = (load_file(folder/'out'/'model.safetensors') for folder in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
