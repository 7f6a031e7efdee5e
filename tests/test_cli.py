"The command line: bad input gives one line on stderr and exit status 2, and help needs nothing heavy."
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from thinkact_nb import cli
from thinkact_nb.env import PROFILES
from thinkact_nb.store import Store


def python(code, *words, cwd=ROOT):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.run([sys.executable, '-c', code, *words], cwd=cwd, env=env, text=True, capture_output=True)


def thinkact(*words, cwd=ROOT): return python('from thinkact_nb.cli import main; main()', *words, cwd=cwd)


def refused(done, *said):
    "Exit status 2, nothing on stdout, one line on stderr that says all of `said`."
    assert done.returncode == 2, done.stderr
    assert done.stdout == ''
    assert done.stderr.count('\n') == 1 and done.stderr.startswith('thinkact: '), done.stderr
    for words in said: assert words in done.stderr


@pytest.fixture
def run(tmp_path):
    "A run folder in which nothing was made yet."
    (tmp_path/'run').mkdir()
    (tmp_path/'run/config.json').write_text(json.dumps(dict(profile=asdict(PROFILES['tiny']), seed=0)))
    return str(tmp_path/'run')


def test_help():
    done = thinkact('--help')
    assert done.returncode == 0 and done.stderr == ''
    for command in cli.COMMANDS: assert f'• {command} ' in done.stdout


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_help_of_each_command(command, capsys):
    with pytest.raises(SystemExit) as stop: cli.main([command, '--help'])
    said = capsys.readouterr().out
    assert not stop.value.code
    for option in ('--run', '--profile', '--seed', '--hub', '--resume'): assert option in said
    assert '(default: None)' not in said


@pytest.mark.parametrize('words, said', [
    ([], 'no command'),
    (['fly'], "unknown command 'fly'"),
    (['--fly'], 'Unrecognized options: --fly'),
    (['eval', '--sceens', '3'], 'thinkact eval --help'),
    (['data', '--n', '0'], '--n 0: give 1 or more'),
    (['data', '--n', 'many'], "'many' is not a whole number"),
    (['data', '--n'], 'Missing value'),
    (['data', '--seed', '-1'], 'give 0 or more'),
    (['data', '--profile', 'huge'], 'choose from tiny, t4, large, gemma4'),
    (['data', '--tasks', 'put_on', 'juggle'], "unknown task 'juggle'"),
    (['data', '--levels', 'L0', 'L4'], 'it is for evaluation'),
    (['data', '--levels', 'L0,L9'], "unknown level 'L9'"),
    (['data', '--hub', 'me'], 'USER/REPO'),
    (['data', '--run', ''], '--run is empty'),
    (['eval', '--arms', 'best'], "unknown arm 'best'"),
    (['eval', '--arms', 'sft', 'sft'], 'given twice'),
    (['eval', '--perturb', 'fog'], "unknown perturbation 'fog'"),
    (['eval', '--pool', 'cloud'], "'cloud'"),
    (['sft', '--stream', 'you/tabletop'], 'say how many --steps'),
    (['act', '--task', 'swap', '--table', 'nowhere.parquet'], 'no file nowhere.parquet'),
    (['act'], '--task'),
    (['act', '--task', 'juggle'], "unknown task 'juggle'"),
    (['act', '--task', 'put_on', '--seed', '99999999999'], 'belongs to no split'),
    (['ppo', '--algo', 'dqn'], "'dqn'"),
    (['ppo', '--safety', 'nan'], 'give 0 or more'),
    (['tune', '--trials', '0'], 'give 1 or more'),
    (['tune', '--demonstrations', '0'], 'give 1 or more'),
    (['report', '--run', 'no/such/run'], 'no run in no/such/run'),
], ids=lambda o: ' '.join(o) or 'nothing' if isinstance(o, list) else '')
def test_bad_words(words, said, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop: cli.main(words)
    out, err = capfd.readouterr()
    refused(subprocess.CompletedProcess(words, stop.value.code, out, err), said)
    assert not list(tmp_path.iterdir())


def test_bad_words_in_a_process(tmp_path):
    refused(thinkact('eval', '--tasks', 'juggle', cwd=tmp_path), 'put_on')
    refused(thinkact('sft', '--run', 'none', cwd=tmp_path), 'run `thinkact demo --run none`')


@pytest.mark.parametrize('words, said', [
    (['sft'], 'run `thinkact data --run'),
    (['ppo', '--algo', 'grpo'], 'run `thinkact sft --run'),
    (['tune', '--stage', 'sft'], 'run `thinkact data --run'),
    (['eval', '--arms', 'expert', 'rloo'], 'run `thinkact ppo --algo rloo'),
    (['eval', '--arms', 'mine=/nowhere'], 'no adapter_config.json in /nowhere'),
    (['eval', '--arms', 'expert', '--seed', '20000000'], 'validation split'),
    (['report'], 'run `thinkact eval --run'),
    (['report', '--profile', 't4'], "is a run of profile 'tiny'"),
    (['act', '--task', 'put_on', '--arm', 'sft'], 'run `thinkact sft --run'),
], ids=lambda o: ' '.join(o) if isinstance(o, list) else '')
def test_missing_stages(words, said, run, capfd):
    with pytest.raises(SystemExit) as stop: cli.main([*words, '--run', run])
    out, err = capfd.readouterr()
    refused(subprocess.CompletedProcess(words, stop.value.code, out, err), said)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path/'file').touch()
    refused(thinkact('data', '--n', '1', '--profile', 'tiny', '--run', str(tmp_path/'file'/'run')), 'choose another --run folder')


def test_run_folder_with_a_broken_configuration(run):
    Path(run, 'config.json').write_text('{')
    refused(thinkact('report', '--run', run), 'config.json')


@pytest.mark.parametrize('change, said', [
    (dict(profile=asdict(PROFILES['tiny']) | dict(sft_batch=8)), 'with sft_batch 8, not 16'),
    (dict(profile=asdict(PROFILES['t4'])), "profile 't4'"),
    (dict(profile=dict(name='tiny')), 'not of this version')])
def test_run_folder_of_another_profile(run, capfd, change, said):
    (Path(run)/'config.json').write_text(json.dumps(dict(seed=0) | change))
    with pytest.raises(SystemExit) as stop: cli.main(['sft', '--run', run, '--profile', 'tiny'])
    refused(subprocess.CompletedProcess('sft', stop.value.code, *capfd.readouterr()), said)


def test_stage_that_was_changed_after_it_was_finished(run, capfd):
    store = Store(run)
    (store.begin('data')/'train.parquet').write_bytes(b'rows')
    store.push('data')
    (store.path('data')/'train.parquet').write_bytes(b'row')
    with pytest.raises(SystemExit) as stop: cli.main(['sft', '--run', run])
    refused(subprocess.CompletedProcess('sft', stop.value.code, *capfd.readouterr()), '3 bytes of train.parquet, and 4 were saved', 'run `thinkact data')


def test_interrupt(monkeypatch, capfd):
    def interrupted(self): raise KeyboardInterrupt
    monkeypatch.setattr(cli.Env, '__call__', interrupted)
    with pytest.raises(SystemExit) as stop: cli.main(['env'])
    assert stop.value.code == 130
    assert capfd.readouterr() == ('', 'thinkact: stopped; the same command with --resume continues\n')


def test_other_errors_are_not_hidden(monkeypatch):
    def broken(self): raise ZeroDivisionError
    monkeypatch.setattr(cli.Env, '__call__', broken)
    with pytest.raises(ZeroDivisionError): cli.main(['env'])


def test_what_is_imported():
    heavy = "print([m for m in ('torch', 'transformers', 'pandas', 'matplotlib', 'pybullet', 'scipy') if m in sys.modules])"
    assert python(f'import sys, thinkact_nb.cli; {heavy}').stdout == '[]\n'
    assert 'torch' not in python(f'import sys, thinkact_nb.sim; {heavy}').stdout


def test_env_as_json():
    done = thinkact('env', '--json', '--profile', 't4')
    told = json.loads(done.stdout)
    assert (told['profile']['name'], told['why']) == ('t4', 'asked for')


def test_l4_is_for_tasks_without_demonstrations(run, capfd):
    (Path(run)/'data').mkdir()
    pd.DataFrame(dict(task=['put_on', 'stack'])).to_parquet(Path(run)/'data/train.parquet')
    with pytest.raises(SystemExit) as stop: cli.main(['eval', '--levels', 'L4', '--tasks', 'swap,stack', '--arms', 'expert', '--run', run])
    refused(subprocess.CompletedProcess('eval', stop.value.code, *capfd.readouterr()), 'show stack')
    cli.main(['eval', '--levels', 'L4', '--tasks', 'swap', '--arms', 'expert', '--n', '2', '--run', run])
    assert '2 of 2 scenes' in capfd.readouterr().out
