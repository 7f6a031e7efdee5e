"What a machine may lack or have in an odd form: git, ffmpeg, sysconf, streams, a locale, a launcher, a script that workers can import."
import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from thinkact_nb import cli, env, pictures, pool, store
from thinkact_nb.env import UserError

ROOT = Path(__file__).parent.parent
MAIN = 'from thinkact_nb.cli import main; main()'
STRICT = "import warnings; warnings.filterwarnings('error', category=EncodingWarning, module='thinkact_nb')\n"
ASCII = dict(LC_ALL='C', PYTHONCOERCECLOCALE='0', PYTHONUTF8='0')
ACT = ('act', '--task', 'put_on', '--seed', '7', '--arm', 'expert')


def python(code, *words, cwd, options=(), **how):
    how = dict(capture_output=True, encoding='utf-8', errors='replace') | how
    settings = os.environ | dict(PYTHONPATH=str(ROOT)) | how.pop('env', {})
    return subprocess.run([sys.executable, *options, *(['-c', code] if code else []), *words], cwd=cwd, env=settings, **how)


def test_a_checkout_without_the_program_git_begins_a_run(tmp_path, monkeypatch):
    "Guard: FileNotFoundError: 'git', and no run could begin (suoto/hdl_checker#72)."
    package = tmp_path/'checkout'/'thinkact_nb'
    for folder in (package, tmp_path/'checkout'/'.git'): folder.mkdir(parents=True)
    monkeypatch.setattr(store, 'PACKAGE', package)
    monkeypatch.setenv('PATH', str(tmp_path))
    begun = store.Store(tmp_path/'run', env.get_profile('tiny'))
    assert json.loads(begun.config)['commit'] is None


def test_a_machine_that_does_not_say_how_much_memory_it_has(monkeypatch, capsys):
    "Guard: Windows has no os.sysconf; some sandboxes answer with an error."
    monkeypatch.delattr(os, 'sysconf')
    assert env.hardware()['memory'] is None
    cli.main(['env'])
    assert 'cores, ? GB' in capsys.readouterr().out


@pytest.mark.parametrize('reader', ['true', 'head -1'])
def test_a_reader_that_goes_away_stops_no_work(tmp_path, reader):
    "Guard: BrokenPipeError as a traceback (Backblaze/B2_Command_Line_Tool#1071)."
    said = python(None, '-c', f'set -o pipefail; {sys.executable} -c "{MAIN}" data --help | {reader}', cwd=tmp_path, executable='bash')
    assert said.returncode == 0 and not said.stderr, said.stderr[-500:]


def test_a_command_without_streams_in_a_locale_that_is_not_utf8(tmp_path):
    "Guard: 'NoneType' has no attribute 'flush' without stdout; UnicodeEncodeError for a folder called 한; ValueError for RANK=."
    shell = f'exec {sys.executable} -c "{MAIN}" {" ".join(ACT)} --run run >&- 2>error'
    done = python(None, '-c', shell, cwd=tmp_path, executable='bash', env=ASCII | dict(PYTHONIOENCODING='cp1252', RANK='', WORLD_SIZE='', LOCAL_RANK=''))
    assert done.returncode == 0, (tmp_path/'error').read_text(encoding='utf-8')[-800:]
    made = tmp_path/'run'/'act'/'put_on-L0-7-expert.png'
    assert made.read_bytes()[1:4] == b'PNG' and made.with_suffix('.mp4').read_bytes()[4:8] == b'ftyp'
    done = python(MAIN, *ACT, '--run', '한', cwd=tmp_path, env=dict(PYTHONIOENCODING='cp1252'))
    assert done.returncode == 0 and 'outcome      success' in done.stdout and 'picture      ?' in done.stdout and (tmp_path/'한/act').is_dir()
    done = python(MAIN, 'data', '--run', '한글', cwd=tmp_path, env=ASCII)
    assert done.returncode == 2 and done.stderr.startswith('thinkact: --run has characters that this locale cannot read: set PYTHONUTF8=1') and 'Traceback' not in done.stderr


def test_c_prints_into_no_file_that_took_the_number_of_stdout(tmp_path):
    "Guard: with stdout closed, the next file opened gets its number, and what PyBullet prints from C is written into it."
    code = f"""import os
from thinkact_nb.env import quiet, steady_streams
steady_streams()
with open({str(tmp_path/'table')!r}, 'w', encoding='utf-8') as file:
    assert file.fileno() > 2
    with quiet(): pass
    os.write(1, b'from C'), os.write(2, b'from C')
    file.write('rows')"""
    done = python(None, '-c', f'exec {sys.executable} -c "$CODE" >&- 2>&- <&-', cwd=tmp_path, executable='bash', env=dict(CODE=code))
    assert done.returncode == 0 and (tmp_path/'table').read_text(encoding='utf-8') == 'rows'


@pytest.mark.parametrize('left, found', [(dict(RANK=''), (0, 1)), (dict(RANK='1'), (0, 1)), (dict(WORLD_SIZE='2'), (0, 1)), (dict(RANK='1', WORLD_SIZE=''), (0, 1)),
                                         (dict(RANK='1', WORLD_SIZE='2'), (1, 2)), (dict(RANK='x', WORLD_SIZE='2'), 'RANK=x'), (dict(RANK='0', WORLD_SIZE='-2'), 'WORLD_SIZE=-2')])
def test_what_a_launcher_left_over(monkeypatch, capsys, left, found):
    "Guard: ValueError for RANK=; a command that said nothing for RANK=1 alone (pytorch/examples#458)."
    for name in ('RANK', 'WORLD_SIZE'): monkeypatch.delenv(name, raising=False)
    for name, value in left.items(): monkeypatch.setenv(name, value)
    if isinstance(found, tuple): assert (env.rank(), env.processes()) == found
    else:
        with pytest.raises(UserError, match=found): env.rank()
        with pytest.raises(SystemExit) as stop: cli.main(['env'])
        assert stop.value.code == 2 and f'thinkact: {found} in the environment is no number' in capsys.readouterr().err


def test_without_ffmpeg_the_work_goes_on_without_films(tmp_path, monkeypatch, capsys):
    "Guard: RuntimeError at the end of `report` and `act`, after the work."
    monkeypatch.setenv('IMAGEIO_FFMPEG_EXE', str(tmp_path/'ffmpeg'))
    env.say.cache_clear()
    cli.main([*ACT, '--run', str(tmp_path/'run')])
    said = capsys.readouterr()
    assert 'video        (none)' in said.out and 'no film is written: ffmpeg is not here' in said.err and [f.name for f in (tmp_path/'run/act').iterdir()] == ['put_on-L0-7-expert.png']
    from thinkact_nb.evaluate import rl_of
    table = pd.read_parquet(store.table_file('episodes.parquet'))
    [case] = pictures.cases(table[table.level == 'L0'], 'sft', rl_of(table), 1)[:1]
    page = pictures.case_html(case, 'thinkact act')
    assert case.a['film'] == case.b['film'] == '' and '<video' not in page and '<img' in page
    from thinkact_nb import report
    monkeypatch.setattr(report, 'demo_video', lambda *_: pool.write_video([np.zeros((32, 32, 3), np.uint8)], tmp_path/'film.mp4'))
    with pytest.raises(pool.NoFilm): report.demo_video()
    assert report._film(None, ('sft', 'ppo')) == ''


NOBODY = """import os, pwd
for name in ('HOME', 'USER', 'LOGNAME', 'LNAME', 'USERNAME'): os.environ.pop(name, None)
def unknown(*_): raise KeyError('uid not found')
pwd.getpwuid = unknown
"""


def test_a_user_without_a_home(tmp_path):
    "Guard: in a container the user may have no name and no folder (NVIDIA-TAO/tao-skill-bank#150)."
    done = python(NOBODY + MAIN, *ACT, '--run', 'run', cwd=tmp_path)
    assert done.returncode == 0 and 'outcome      success' in done.stdout, done.stderr[-800:]


def test_every_file_is_utf8_in_any_locale(tmp_path):
    "Guard: UnicodeEncodeError in the card after all rows were made, and again at every try (mindee/doctr#1118)."
    strict, words = STRICT + MAIN, ('--run', 'run')
    options = ('-X', 'warn_default_encoding')
    for command in (('data', '--n', '2', '--tasks', 'put_on', '--lang', 'ko', '--set', 'image_size=64'), ('export', '--to', 'files', '--out', 'out')):
        done = python(strict, *command, *words, cwd=tmp_path, options=options, env=ASCII)
        assert done.returncode == 0, done.stderr[-800:]
    card, lines = ((tmp_path/name).read_text(encoding='utf-8') for name in ('run/data/README.md', 'out/demonstrations.jsonl'))
    assert '…' in card and '패드' in lines


OPENS = ('open', 'read_text', 'write_text', 'fdopen', 'NamedTemporaryFile', 'TemporaryFile')
RUNS = ('run', 'Popen', 'check_output')


def unsaid(tree):
    "Calls that read or write text in the locale's encoding: (line, what is called)."
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call): continue
        name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        named, words = {k.arg for k in node.keywords}, [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        if 'encoding' in named or None in named: continue
        of = ast.unparse(node.func)
        binary = any(isinstance(w, str) and set(w) <= set('rwxab+') and 'b' in w for w in words) or of.split('.')[0] in ('os', 'tarfile', 'Image', 'webbrowser', 'gzip', 'h5py', 'zipfile')
        if name in ('NamedTemporaryFile', 'TemporaryFile') and not any(isinstance(w, str) and 'w' in w for w in words): continue
        if name in OPENS and not binary and not (name == 'read_text' and of.startswith('importlib')): yield node.lineno, of
        if name in RUNS and {'text', 'universal_newlines'} & named: yield node.lineno, of


@pytest.mark.parametrize('folder', ['thinkact_nb', 'tools', 'tests', 'benchmark', 'space', 'nbs'])
def test_whoever_opens_a_text_says_utf8(folder):
    "Guard: thirty calls without encoding=; a Korean Windows reads and writes cp949 then. Lessons of notebooks count too."
    found = []
    for path in sorted((ROOT/folder).glob('*.py')): found += [f'{path.name}:{line} {what}' for line, what in unsaid(ast.parse(path.read_text(encoding='utf-8')))]
    for path in sorted((ROOT/folder).rglob('*.ipynb')):
        for i, cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']):
            source = '\n'.join(line for line in ''.join(cell['source']).split('\n') if not line.lstrip().startswith(('%', '!')))
            if cell['cell_type'] == 'code': found += [f'{path.name} [{i}] {what}' for _, what in unsaid(ast.parse(source))]
    assert not found


SCRIPT = 'from thinkact_nb.pool import SimPool\nwith SimPool(1) as pool: print(pool.map(abs, [-1]))\n'


@pytest.mark.parametrize('stdin, said', [(False, 'if __name__ == "__main__":'), (True, 'save it as one')])
def test_a_script_that_workers_cannot_import_is_named_at_the_first_death(tmp_path, stdin, said):
    "Guard: ten workers were begun and died, and 'free some memory' (vllm-project/vllm#43782)."
    (script := tmp_path/'script.py').write_text(SCRIPT, encoding='utf-8')
    done = python(None, *(['-'] if stdin else [str(script)]), cwd=tmp_path, input=SCRIPT if stdin else None)
    assert done.returncode == 1 and said in done.stderr and 'in a row' not in done.stderr and done.stderr.count('Traceback') == 1, done.stderr


@pytest.mark.parametrize('command', ['sft --seed 4294967296', 'ppo --seed 100', 'demo --seed 100', 'tune --seed 100', 'data --seed -1', 'eval --arms expert --seed -5', 'act --task put_on --seed 40000000'])
def test_a_seed_that_cannot_be_is_refused_before_any_work(tmp_path, command, capsys, monkeypatch):
    "Guard: NumPy's ValueError as a traceback, after loading; and RL with a seed of 100 or more trained on scenes of validation and test."
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop: cli.main(command.split())
    assert stop.value.code == 2 and 'give ' in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_functions_refuse_what_is_no_seed():
    from thinkact_nb import evaluate, share, sim, tasks, trainer, tune
    short = pd.DataFrame(dict(arm=['a', 'b']))
    for odd in (-1, 1.5, 2**64, None, True, '3'):
        for take in (lambda: sim.make_scene('put_on', 'L0', odd), lambda: env.seed_all(odd), lambda: share.stream_dataset('a/b', odd),
                     lambda: evaluate.compare(short, 'a', 'b', odd), lambda: trainer.rl_trainer(None, None, seed=odd), lambda: tune.Study(None, seed=odd)):
            with pytest.raises(UserError, match='give a whole number from 0'): take()
    for seed in (100, 10**6):
        with pytest.raises(UserError, match='from 0 to 99'): trainer.rl_trainer(None, None, seed=seed)
    assert trainer.SEED_SCENES == 100_000 and env.split_of(env.SPLITS['rl'] + 99*trainer.SEED_SCENES) == 'rl'
    environment = tasks.TabletopEnv()
    with pytest.raises(UserError): environment.reset(options=dict(seed=-3))
    environment.close()


@pytest.mark.parametrize('name', ['Tabletop', 'Loop'])
def test_vector_environments_hand_the_instructions_over(name):
    "Guard: with AsyncVectorEnv every instruction was blank: text in shared memory was read once, at construction (Farama-Foundation/Gymnasium#1164)."
    import gymnasium
    import thinkact_nb.turns  # noqa: F401  it registers Loop-v0
    from gymnasium.wrappers.vector import RecordEpisodeStatistics
    from thinkact_nb.sim import make_scene, render_output, solve
    seen = {}
    for how, settings in dict(sync={}, shared={}, piped=dict(shared_memory=False)).items():
        made = gymnasium.make_vec(f'ThinkAct/{name}-v0', 2, 'sync' if how == 'sync' else 'async', vector_kwargs=settings)
        both = RecordEpisodeStatistics(made)
        first, info = both.reset(seed=3)
        scenes = [make_scene('put_on', 'L0', int(seed)) for seed in info['scene_seed']]
        assert both.observation_space.contains(first) and [str(o) for o in first['instruction']] == [s.instruction for s in scenes] and scenes[0] != scenes[1]
        actions = tuple(render_output('I take it.', solve(scene)) for scene in scenes)
        assert both.action_space.contains(actions)
        after, reward, *_ = both.step(actions)
        again, _ = both.reset(options=dict(seed=5))
        assert [str(o) for o in first['instruction']] == [s.instruction for s in scenes], 'what was handed over does not change afterwards'
        seen[how] = [*map(str, first['instruction']), *map(str, after['instruction']), *map(str, again['instruction']), *reward, first['image'].sum(), after['image'].sum()]
        both.close()
    assert seen['sync'] == seen['shared'] == seen['piped'] and all(seen['sync'][:6]) and seen['sync'][4] == make_scene('put_on', 'L0', 5).instruction
