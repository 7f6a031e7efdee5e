"The command line: bad input gives one line on stderr and exit status 2, and help needs nothing heavy."
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from thinkact_nb import cli, options
from thinkact_nb.env import PROFILES
from thinkact_nb.store import SHIPPED, Store
from thinkact_nb.tasks import TASKS


def python(code, *words, cwd=ROOT):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    return subprocess.run([sys.executable, '-c', code, *words], cwd=cwd, env=env, text=True, capture_output=True, encoding='utf-8')


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
    (tmp_path/'run/config.json').write_text(json.dumps(dict(profile=asdict(PROFILES['tiny']), seed=0)), encoding='utf-8')
    return str(tmp_path/'run')


def test_help():
    done = thinkact('--help')
    assert done.returncode == 0 and done.stderr == ''
    for command in cli.COMMANDS: assert f'• {command} ' in done.stdout


@pytest.mark.parametrize('command, idle', [('env', 'run seed hub public resume set use'), ('act', 'resume public'), ('report', 'seed set'), ('export', 'seed set'),
                                           ('check', 'seed hub public resume set use')])
def test_help_names_no_option_that_changes_nothing(command, idle, capsys):
    "Guard: `thinkact report --help` offered a seed and seventeen numbers of trainings."
    with pytest.raises(SystemExit): cli.main([command, '--help'])
    said = {word.rstrip(',') for word in capsys.readouterr().out.split() if word.startswith('--')}
    assert '--profile' in said and not said & {f'--{name}' for name in idle.split()}


@pytest.mark.parametrize('asked, meant', [(['help'], ['--help']), (['help', 'act'], ['act', '--help'])])
def test_help_in_words(asked, meant, capsys):
    "Guard: `thinkact help`, with a command or without."
    said = []
    for words in (asked, meant):
        with pytest.raises(SystemExit) as stop: cli.main(words)
        said.append((stop.value.code, capsys.readouterr().out))
    assert said[0] == said[1] and not said[0][0]


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_help_of_each_command(command, capsys):
    with pytest.raises(SystemExit) as stop: cli.main([command, '--help'])
    said = capsys.readouterr().out
    assert not stop.value.code
    for option in ('run', 'profile', 'seed', 'hub', 'resume'): assert (f'--{option}' in said) == (option not in cli.COMMANDS[command].idle)
    assert '(default: None)' not in said


@pytest.mark.parametrize('words, said', [
    ([], 'no command'),
    (['fly'], "unknown command 'fly'"),
    (['evaluate'], 'did you mean eval?'),
    (['help', 'evaluate'], 'did you mean eval?'),
    (['check'], 'thinkact check gemma'),
    (['--fly'], 'Unrecognized options: --fly'),
    (['eval', '--sceens', '3'], 'thinkact eval --help'),
    (['eval', '--taks', 'sort'], 'unknown option --taks: did you mean --tasks?'),
    (['ppo', '--no-vidoe'], 'thinkact ppo --help'),
    (['data', '--n', '1000000000'], '--n 1000000000: give 1000000 or less'),
    (['sft', '--set', 'sft_bach=8'], 'did you mean sft_batch?'),
    (['sft', '--set', 'lam=1'], '--set lam=1: '),
    (['ppo', '--set', 'lam=1.5'], 'give a number from 0 to 1'),
    (['ppo', '--set', 'credit_samples=many'], 'give a whole number'),
    (['data', '--set', 'demonstrations'], 'give KEY=VALUE'),
    (['data', '--use', 'nowhere.py'], 'no file nowhere.py'),
    (['sft', '--report-to', 'paper'], "'paper'"),
    (['data', '--lang', 'fr'], "'fr'"),
    (['export', '--to', 'lerobot'], '--out'),
    (['export', '--to', 'files', '--out', 'x', '--arm', 'sft'], '--arm is for --to merged'),
    (['data', '--n', '0'], '--n 0: give 1 or more'),
    (['data', '--n', 'many'], "'many' is not a whole number"),
    (['data', '--n'], 'Missing value'),
    (['data', '--seed', '-1'], 'give a whole number from 0 to'),
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
    (['act', '--task', 'put_on', '--seed', '40000000'], 'belongs to no split'),
    (['ppo', '--algo', 'dqn'], "'dqn'"),
    (['ppo', '--safety', 'nan'], 'give 0 or more'),
    (['tune', '--trials', '0'], 'give 1 or more'),
    (['tune', '--demonstrations', '0'], 'give 1 or more'),
    (['report', '--run', 'no/such/run'], 'no run in no/such/run'),
    (['report', '--seed', '3'], 'options: --seed 3: see `thinkact report --help`'),
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
    (['report', '--profile', 't4'], "is a run of profile 'tiny'"),
    (['act', '--task', 'put_on', '--arm', 'grpo'], 'run `thinkact ppo --algo grpo --run'),
    (['export', '--to', 'files', '--out', 'made'], 'run `thinkact data --run'),
    (['export', '--to', 'merged', '--arm', 'sft-nothink', '--out', 'made'], 'run `thinkact sft --no-think --run'),
    (['export', '--to', 'merged', '--arm', 'expert', '--out', 'made'], 'has no adapter to merge'),
    (['eval', '--arms', 'expert', '--n', '900000', '--tasks', 'sort', '--seed', '39900000'], 'leave the test split'),
], ids=lambda o: ' '.join(o) if isinstance(o, list) else '')
def test_missing_stages(words, said, run, capfd):
    with pytest.raises(SystemExit) as stop: cli.main([*words, '--run', run])
    out, err = capfd.readouterr()
    refused(subprocess.CompletedProcess(words, stop.value.code, out, err), said)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path/'file').touch()
    refused(thinkact('data', '--n', '1', '--profile', 'tiny', '--run', str(tmp_path/'file'/'run')), 'choose another --run folder')


def test_run_folder_with_a_broken_configuration(run):
    Path(run, 'config.json').write_text('{', encoding='utf-8')
    refused(thinkact('report', '--run', run), 'config.json')


@pytest.mark.parametrize('change, said', [
    (dict(profile=asdict(PROFILES['tiny']) | dict(sft_batch=8)), 'with sft_batch 8, not 16'),
    (dict(profile=asdict(PROFILES['t4'])), "profile 't4'"),
    (dict(profile=dict(name='tiny')), 'not of this version')])
def test_run_folder_of_another_profile(run, capfd, change, said):
    (Path(run)/'config.json').write_text(json.dumps(dict(seed=0) | change), encoding='utf-8')
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
    heavy = "print([m for m in ('torch', 'transformers', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    assert python(f'import sys, thinkact_nb.cli; {heavy}').stdout == '[]\n'
    light = 'sim', 'store', 'checkpoints'
    for said in (python(f'import sys, thinkact_nb.{module}; {heavy}').stdout for module in light): assert said and 'torch' not in said


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


OWN = """
from thinkact_nb.sim import TASKS, Task
TASKS['mine'] = Task('put a named block on a named pad', TASKS['put_on'].sample, ('Lay the {block} on the {pad}.', 'The {block} goes on the {pad}.', 'Let the {block} lie on the {pad}.'))
from thinkact_nb.store import add_algorithm
add_algorithm('mine+lam', 'adapter of mine', baseline='critic', lam=.5)
"""
IN_KOREAN = """
TASKS['mine'].wordings_in['ko'] = ('{block:을} {pad} 위에 놓아라.', '{block:을} {pad:으로} 옮겨라.')
"""
USES = "import os; os.environ['THINKACT_USE'] = 'mine.py'\n"
TRAINED = """
from dataclasses import replace
from thinkact_nb.critic import facts, facts_width
from thinkact_nb.language import expert
from thinkact_nb.env import PROFILES
from thinkact_nb.evaluate import arm_names
from thinkact_nb.pool import SimPool
from thinkact_nb.trainer import train_rl
from thinkact_nb.sim import make_scene
from thinkact_nb.store import SHIPPED, Store
from thinkact_nb.sim import TASKS
TASKS['later'] = TASKS['mine']  # after everything was imported
scene = make_scene('later', 'L0', 3)
told = facts([expert(scene), '.'], scene)
store = Store('run', replace(PROFILES['tiny'], rl_batch=8, rl_micro_batch=4, max_new_tokens=24), shipped=True)
log = train_rl(store, SimPool(0), 'mine+lam', updates=1, tasks=('later',))
print('mine+lam' in arm_names(), told.shape == (2, facts_width()), told[1].sum() == 8, len(log) == 1, store.has('rl/mine+lam'), (store.run/'rl/mine+lam/value_head.safetensors').exists())
"""
WITHOUT_TORCH = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'transformers', 'peft', 'trl', 'bitsandbytes'): raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
from thinkact_nb.cli import main
main()
"""


def test_version(capsys):
    cli.main(['--version'])
    assert capsys.readouterr().out == 'thinkact_nb 0.2.0\n'


def test_every_number_that_can_be_set_is_one_of_the_trainers_and_in_the_help(capsys):
    "Guard: a name that the trainer does not know would end in its traceback, after the model was loaded."
    from dataclasses import fields
    from thinkact_nb.algorithms import PPOConfig
    from trl import SFTConfig
    ours = {f.name for f in fields(PPOConfig)}
    assert set(options.RL_NUMBERS) <= ours and set(options.SFT_NUMBERS) <= {f.name for f in fields(SFTConfig)}
    for command, known in (('ppo', options.PROFILE_NUMBERS | options.RL_NUMBERS), ('sft', options.PROFILE_NUMBERS | options.SFT_NUMBERS)):
        with pytest.raises(SystemExit): cli.main([command, '--help'])
        said = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
        assert all(name in said for name in known)
    with pytest.raises(SystemExit): cli.main(['eval', '--help'])
    said = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    assert all(name in said for name in (*TASKS, *options.POLICY_NAMES))


def test_what_was_set_reaches_the_trainer_and_the_costs(run, monkeypatch):
    "Guard: a sweep whose numbers are dropped on the way compares a policy with itself."
    from thinkact_nb import sft, trainer
    Path(run, 'sft').mkdir()
    Path(run, 'sft', 'adapter_config.json').write_text('{}', encoding='utf-8')
    asked = {}
    def trained(store, *args, **settings):
        asked.update(settings, profile=store.profile)
        return pd.DataFrame([dict(update=1)])
    monkeypatch.setattr(Store, 'require', lambda self, stage, file: Path(self.run)/stage)
    monkeypatch.setattr(trainer, 'train_rl', trained)
    cli.main(['ppo', '--run', run, '--set', 'lam=0.9', 'rl_learning_rate=0.001,rl_batch=64', '--updates', '2'])
    assert asked['lam'] == .9 and asked['report_to'] == 'none' and (asked['profile'].rl_learning_rate, asked['profile'].rl_batch) == (.001, 64)
    noted = json.loads(Path(run, 'costs.json').read_text(encoding='utf-8'))['rl/ppo']
    assert noted['set'] == ['lam=0.9', 'rl_learning_rate=0.001', 'rl_batch=64'] and noted['done'] == '2 updates, 128 episodes'
    assert json.loads(Path(run, 'config.json').read_text(encoding='utf-8'))['profile']['rl_batch'] == 256  # what the run began with
    asked.clear()
    def taught(store, *args, **settings):
        asked.update(settings)
        return pd.DataFrame([dict(step=1, loss=1., eval_parsed=1., eval_success=1.)]).assign(eval_loss=0.)
    monkeypatch.setattr(sft, 'train_sft', taught)
    cli.main(['sft', '--run', run, '--set', 'weight_decay=0.1', '--steps', '3'])
    assert asked['weight_decay'] == .1 and asked['steps'] == 3


def test_a_run_that_begins_keeps_what_was_set(tmp_path, monkeypatch):
    from thinkact_nb import data
    monkeypatch.setattr(data, 'make_dataset', lambda n, *args: [0]*n)
    cli.main(['data', '--profile', 'tiny', '--set', 'demonstrations=3', 'lora_rank=4', '--run', str(tmp_path/'run')])
    made = json.loads((tmp_path/'run'/'config.json').read_text(encoding='utf-8'))['profile']
    assert (made['demonstrations'], made['lora_rank'], made['name']) == (3, 4, 'tiny')
    assert json.loads((tmp_path/'run'/'costs.json').read_text(encoding='utf-8'))['data']['done'] == '3 demonstrations'


def test_policies_without_a_model_need_no_torch(tmp_path):
    "Guard: the simulator, its expert and its evaluation are of use to who has no torch."
    done = python(WITHOUT_TORCH, 'act', '--task', 'put_on', '--seed', '7', '--arm', 'expert', '--run', 'run', cwd=tmp_path)
    assert done.returncode == 0 and 'outcome      success' in done.stdout, done.stderr
    done = python(WITHOUT_TORCH, 'eval', '--arms', 'expert', 'random', '--n', '2', '--tasks', 'put_on', '--run', 'run', cwd=tmp_path)
    assert done.returncode == 0 and '2 of 2 scenes' in done.stdout, done.stderr
    done = python(WITHOUT_TORCH, 'act', '--task', 'put_on', '--seed', '7', cwd=tmp_path)
    assert done.returncode == 2 and "run `pip install 'thinkact_nb[train]'`" in done.stderr


def test_tokens_are_counted_alike_with_torch_and_without():
    from thinkact_nb import evaluate
    from thinkact_nb.family import load_processor
    profile = PROFILES['tiny']
    whole, light = load_processor(profile).tokenizer, evaluate._tokenizer(profile)
    for text in ('', 'The red block is at <loc10><loc63>, 12 cm away.', 'pick <loc01><loc02>; place <loc03><loc04>', '<think>é 한국어</think>'):
        assert light(text, add_special_tokens=False).input_ids == whole(text, add_special_tokens=False).input_ids


def test_the_first_command_of_the_readme_needs_no_run(tmp_path):
    "Guard: without a run `act` stopped, and with demonstrations alone the base that was never taught wrote nothing."
    done = thinkact('act', '--task', 'put_on', '--seed', '7', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "so the stand-in's that comes with thinkact_nb" in done.stdout + done.stderr
    assert 'policy       rft' in done.stdout and 'action       pick' in done.stdout


def test_what_comes_with_the_package_is_acted_evaluated_exported_and_reported(tmp_path):
    "Guard: `act` took the shipped policy, and whoever then wanted to measure or export it was told to train one first."
    for words, said in ((['report', '--no-video'], 'index.html'),
                        (['eval', '--n', '2', '--tasks', 'put_on'], 'rft '),
                        (['act', '--task', 'put_on', '--seed', '7', '--arm', 'sft'], 'policy       sft'),
                        (['export', '--to', 'merged', '--out', 'made'], 'made')):
        done = thinkact(*words, cwd=tmp_path)
        assert done.returncode == 0 and said in done.stdout, (words, done.stdout, done.stderr)
        told = [line for line in done.stderr.splitlines() if 'comes with thinkact_nb' in line or "of the stand-in's demo run" in line]
        assert len(told) == (3 if words[0] == 'eval' else 1), done.stderr  # one line for each adapter
    assert (tmp_path/'made'/'model.safetensors').exists()
    refused(thinkact('eval', '--arms', 'sft', '--run', 'typo', cwd=tmp_path), 'no run in typo')
    assert not (tmp_path/'typo').exists()


def test_act_asks_the_repository_who_acts():
    "Guard: on a fresh machine with --hub the base acted, which was never taught, since only the folder was looked at."
    class OnHub(Store):
        shipped = False
        def __init__(self, *stages): self.stages = stages
        def has(self, stage, file): return stage in self.stages
    found = [cli.Act(task='put_on', hub='you/robot').best(OnHub(*stages)) for stages in (('sft', 'rl/ppo'), ('sft',), ())]
    assert found == ['ppo', 'sft', 'base']


def test_a_run_with_an_adapter_of_its_own_is_not_filled_up(run, capfd):
    "Guard: a table of one's own SFT beside the package's PPO would compare two trainings."
    shutil.copytree(SHIPPED/'sft', Path(run)/'sft')
    with pytest.raises(SystemExit) as stop: cli.main(['eval', '--arms', 'sft', 'ppo', '--n', '2', '--run', run])
    refused(subprocess.CompletedProcess('eval', stop.value.code, *capfd.readouterr()), 'no PPO adapter in')


def test_a_task_of_the_users_own_is_made_evaluated_and_acted(tmp_path):
    "Guard: an own task lived in one process; workers and commands did not know it."
    (tmp_path/'mine.py').write_text(OWN, encoding='utf-8')
    for words, said in ((['data', '--n', '3', '--profile', 'tiny'], '3 demonstrations'), (['eval', '--n', '2', '--arms', 'expert'], '2 of 2 scenes')):
        done = thinkact(*words, '--tasks', 'mine', '--use', 'mine.py', '--run', 'run', cwd=tmp_path)
        assert done.returncode == 0 and said in done.stdout, done.stderr
    done = thinkact('act', '--task', 'mine', '--use', 'mine.py', '--arm', 'expert', '--run', 'run', cwd=tmp_path)
    assert 'outcome      success' in done.stdout, done.stderr
    refused(thinkact('act', '--task', 'mine', '--arm', 'expert', '--run', 'run', cwd=tmp_path), "unknown task 'mine'")
    done = thinkact('data', '--lang', 'ko', '--n', '3', '--tasks', 'mine', '--use', 'mine.py', '--run', 'ko', cwd=tmp_path)
    assert done.returncode == 2 and "thinkact: task 'mine' has no Korean wordings" in done.stderr and 'Traceback' not in done.stderr
    (tmp_path/'mine.py').write_text(OWN + IN_KOREAN, encoding='utf-8')
    done = thinkact('data', '--lang', 'ko', '--n', '3', '--tasks', 'mine', '--use', 'mine.py', '--run', 'ko', '--profile', 'tiny', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path/'mine.py').write_text('import nothing_like_it', encoding='utf-8')
    refused(thinkact('data', '--use', 'mine.py', cwd=tmp_path), 'mine.py cannot be run (ModuleNotFoundError')


def test_an_algorithm_and_a_task_of_the_users_own_are_trained_and_reported(tmp_path):
    "Guard: a name was written in six places, and whoever forgot one had an algorithm without a report."
    (tmp_path/'mine.py').write_text(OWN, encoding='utf-8')
    done = python(USES + TRAINED, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split()[-6:] == ['True'] * 6, done.stdout + done.stderr
    for words in (['eval', '--n', '2', '--arms', 'expert', 'mine+lam', '--tasks', 'mine'], ['report', '--no-video']):
        done = thinkact(*words, '--use', 'mine.py', '--run', 'run', cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert 'mine+lam' in (tmp_path/'run'/'report'/'index.html').read_text(encoding='utf-8')
    refused(thinkact('eval', '--arms', 'mine+lam', '--run', 'run', cwd=tmp_path), 'mine+lam')
    assert 'mine+lam' in python(USES + 'from thinkact_nb.cli import main; main()', 'ppo', '--help', cwd=tmp_path).stdout


def test_exports(tmp_path):
    "Guard: what other programs read."
    made = thinkact('data', '--n', '2', '--profile', 'tiny', '--tasks', 'put_on', '--lang', 'ko', '--run', 'run', cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert thinkact('export', '--to', 'files', '--out', 'files', '--run', 'run', cwd=tmp_path).returncode == 0
    lines = (tmp_path/'files'/'demonstrations.jsonl').read_text(encoding='utf-8').splitlines()
    assert len(lines) == 2 and any('가' <= c <= '힣' for c in json.loads(lines[0])['instruction'])
    assert '2 demonstrations' in thinkact('export', '--to', 'lerobot', '--out', 'lerobot', '--run', 'run', cwd=tmp_path).stdout
    assert (tmp_path/'lerobot'/'meta'/'info.json').exists()
    refused(thinkact('export', '--to', 'files', '--out', 'files', '--run', 'run', cwd=tmp_path), 'not an empty folder')


def test_help_of_flags_reads_right():
    for command, flag, about in (('sft', '--no-think', 'learn to act without a think'), ('report', '--no-video', 'leave out the film')):
        said = ' '.join(thinkact(command, '--help').stdout.replace('│', ' ').split())
        assert f'{flag} {about}' in said
