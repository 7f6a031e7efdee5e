"Every file that a command reads, damaged in every way: one line that names the file, exit status 2, and the file as it was."
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
from thinkact_nb import cli
from thinkact_nb.env import PROFILES
from thinkact_nb.files import seal
from thinkact_nb.store import SHIPPED, table_file
from thinkact_nb.pool import SimPool

EVAL = ['eval', '--arms', 'sft', '--n', '1']
READ = {  # file of a run: commands that read it
    'config.json': [['report'], ['sft'], ['ppo'], ['tune'], EVAL, ['data', '--n', '1'], ['act', '--task', 'put_on']],
    'costs.json': [['report'], ['data', '--n', '1']],
    'data/manifest.json': [['sft']],
    'data/train.parquet': [['sft'], ['eval', '--arms', 'expert', '--levels', 'L4', '--tasks', 'swap', '--n', '1']],
    'sft/manifest.json': [['ppo'], EVAL],
    'sft/adapter_config.json': [['ppo'], EVAL, ['tune']],
    'sft/log.json': [['report']],
    'rl/ppo/log.json': [['report']],
    'eval/manifest.json': [['report']],
    'eval/episodes.parquet': [['report'], [*EVAL, '--resume'], ['act', '--task', 'put_on', '--table', '{run}/eval/episodes.parquet']],
    'eval/interventions.parquet': [['report']],
    'tune/trials.json': [['report']],
    'tune/study.db': [['tune', '--trials', '1']]}
OTHER = {  # file: what another version, or nobody, would write
    'config.json': dict(profile=asdict(PROFILES['tiny']), seed=0, colour='blue'), 'costs.json': dict(sft=dict(hours=1)), 'manifest.json': dict(files={}, signed_by='me'),
    'adapter_config.json': dict(peft_type='LORA'), 'log.json': dict(steps=[]), 'trials.json': [dict(trial=1)]}


def truncated(file): file.write_bytes(file.read_bytes()[:-len(file.read_bytes())//3])
def emptied(file): file.write_bytes(b'')
def garbled(file): file.write_bytes(bytes(range(256))*8)


def a_folder(file):
    file.unlink()
    file.mkdir()


def of_another_type(file):
    if file.suffix == '.json': file.write_text('"a text"', encoding='utf-8')
    elif file.suffix == '.parquet': pd.read_parquet(file).assign(task=5, instruction=5).to_parquet(file)
    else: file.write_text('a text', encoding='utf-8')


def of_another_version(file):
    if file.suffix == '.json': file.write_text(json.dumps(OTHER[file.name]), encoding='utf-8')
    elif file.suffix == '.parquet': pd.read_parquet(file).rename(columns=dict(task='chore', instruction='order')).to_parquet(file)
    else: file.write_bytes(b'SQLite format 9\0' + bytes(4096))


WAYS = (truncated, emptied, garbled, a_folder, of_another_type, of_another_version)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A run in which every stage has its files, of which none is sealed but those that a test seals."
    from thinkact_nb import data
    run = tmp_path_factory.mktemp('whole')/'run'
    shutil.copytree(SHIPPED, run, ignore=shutil.ignore_patterns('manifest.json'))
    (run/'config.json').write_text(json.dumps(dict(profile=asdict(PROFILES['tiny']), seed=0)), encoding='utf-8')
    (run/'costs.json').write_text(json.dumps(dict(sft=dict(minutes=2.5, done='14 steps'))), encoding='utf-8')
    data.make_dataset(2, run/'data', SimPool(0), ('put_on',), image_size=64)
    table = pd.read_parquet(SHIPPED/'eval'/'episodes.parquet')
    table[table.arm.isin(['sft', 'ppo'])].groupby('arm').head(9).to_parquet(run/'eval/episodes.parquet', index=False)
    pd.read_parquet(table_file('interventions.parquet')).head(9).to_parquet(run/'eval/interventions.parquet', index=False)
    (run/'tune').mkdir()
    shutil.copy(table_file('trials.json'), run/'tune')
    shutil.copy(table_file('study.db'), run/'tune')
    return run


@pytest.fixture
def run(whole, tmp_path): return Path(shutil.copytree(whole, tmp_path/'run'))


def status(words, capfd, run):
    "What a command prints on stderr, and how it ends."
    with pytest.raises(SystemExit) as stop: cli.main([word.replace('{run}', str(run)) for word in words] + ['--run', str(run)])
    out, err = capfd.readouterr()
    return stop.value.code, out, err


@pytest.mark.parametrize('way', WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize('name', READ)
def test_a_damaged_file_is_one_line(run, capfd, name, way):
    "Guard: six of nine damaged files were tracebacks, of JSON, Parquet, or a type."
    file = run/name
    if (file.suffix, way) == ('.db', emptied): pytest.skip('an empty file is a new database to SQLite')
    if file.name == 'manifest.json': seal(file.parent)
    way(file)
    before = file.read_bytes() if file.is_file() else None
    for words in READ[name]:
        code, out, err = status(words, capfd, run)
        assert code == 2 and err.startswith('thinkact: ') and err.count('\n') == 1, (words, err)
        assert file.name in err, (words, err)
        assert (file.read_bytes() if file.is_file() else None) == before


def test_a_run_that_is_whole_is_read(run, capfd):
    "Guard: the table above fails for what it does to the files, and for nothing else."
    cli.main(['report', '--run', str(run), '--no-video'])
    assert (run/'report/index.html').exists()
    made = json.loads((run/'report/report.json').read_text(encoding='utf-8'))
    assert made['costs'] and made['interventions'] and made['study'] and set(made['training']) == {'sft', 'ppo', 'rft'}


@pytest.mark.parametrize('way', (truncated, emptied, garbled), ids=lambda way: way.__name__)
def test_damaged_weights_are_one_line(run, capfd, way):
    "Guard: the reader of weights names the file too."
    way(run/'sft/adapter_model.safetensors')
    code, out, err = status(EVAL, capfd, run)
    assert code == 2 and 'sft' in err.splitlines()[-1] and 'Traceback' not in err


LIMIT = 'import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n'


def test_a_full_disk_is_one_line_and_no_half_file(tmp_path):
    "Guard: a command whose disk is full says so, whatever library was writing."
    code = LIMIT + 'from thinkact_nb.cli import main; main(["data", "--n", "9", "--profile", "tiny", "--run", "run", "--tasks", "put_on"])'
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONDONTWRITEBYTECODE': '1'}, cwd=tmp_path, text=True, capture_output=True, encoding='utf-8')
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.splitlines()[-1]
    assert last.startswith('thinkact: cannot write') and 'File too large' in last and 'choose another --run folder' in last, done.stderr[-2000:]
    assert not (tmp_path/'run/data/train.parquet').exists()


@pytest.mark.parametrize('name', ['report', 'report/report.json', 'report/index.html', 'act'])
def test_what_stands_where_a_file_should_go_is_named(run, capfd, name):
    "Guard: a file in place of a folder, or a folder in place of a file, is no traceback."
    (run/name).parent.mkdir(exist_ok=True)
    if name in ('report', 'act'): (run/name).write_text('a file', encoding='utf-8')
    else: (run/name).mkdir()
    words = ['act', '--task', 'put_on', '--arm', 'sft', '--seed', str(pd.read_parquet(run/'eval/episodes.parquet').query('task == "put_on"').seed.iloc[0]), '--table', '{run}/eval/episodes.parquet'] if name == 'act' else ['report', '--no-video']
    code, out, err = status(words, capfd, run)
    assert code == 2 and err.count('\n') == 1 and Path(name).name in err and 'choose another --run folder' in err, err


def test_the_cost_of_a_stage_is_not_lost_to_a_damaged_file_after_the_work(run, capfd):
    "Guard: costs.json was read after hours of work, and what was wrong with it ended the command there."
    (run/'costs.json').write_text('{', encoding='utf-8')
    before = (run/'data/train.parquet').read_bytes()
    code, out, err = status(['data', '--n', '1'], capfd, run)
    assert code == 2 and 'costs.json' in err and (run/'data/train.parquet').read_bytes() == before
