"""What is published: wheel and sdist, built from the files that git tracks, each installed in a clean environment (the wheel by pip, the sdist by uv)
without the extras, and asked for what needs no torch: version, help, demonstrations, an episode, a page from a template.
`make release-check` runs it in .release. With --full the extra `train` is installed too (about 7 GB) and the shipped policy acts. Given Pythons
(`make release-check ARGS="python3.12 python3.13"`), the wheel is installed in each instead, where no compiler can be found and pip keeps nothing: seconds
of the installation, of an episode with its picture, and whether 60 episodes and pictures are those of tests/fingerprint.txt."""
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT/'.release'
NEEDED = ('thinkact_nb/templates/report.html', 'thinkact_nb/templates/style.css', 'thinkact_nb/standin/model.safetensors',
          'thinkact_nb/standin/run/rl/ppo/adapter_model.safetensors', 'thinkact_nb/standin/run/rl/rft/adapter_model.safetensors', 'thinkact_nb/standin/turns/adapter_model.safetensors', 'thinkact_nb/tables/episodes.parquet', 'thinkact_nb/cli.py')
UNWANTED = ('nbs/', 'runs/', 'tests/', 'tools/')
LIMIT = 20e6  # bytes
ASKED = (['--version'], ['--help'], ['data', '--n', '2', '--profile', 'tiny', '--tasks', 'put_on', '--run', 'run'],
         ['eval', '--arms', 'expert', '--n', '2', '--tasks', 'put_on', '--run', 'run'], ['act', '--task', 'put_on', '--arm', 'expert', '--run', 'run'],
         ['report', '--no-video', '--run', 'run'])
FULL = ['act', '--task', 'put_on', '--seed', '7', '--run', 'new']


def run(*words, **more):
    done = subprocess.run([*map(str, words)], text=True, capture_output=True, **more)
    if done.returncode: sys.exit(f"{' '.join(map(str, words))}: status {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def tracked(folder):
    "The files that git tracks, as they are now."
    for name in run('git', 'ls-files', '-z', cwd=ROOT).split('\0'):
        if not name or not (ROOT/name).is_file(): continue
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/name, folder/name)


def names(file):
    "What is in a wheel or an sdist."
    if file.suffix == '.whl': return zipfile.ZipFile(file).namelist()
    return [name.partition('/')[2] for name in tarfile.open(file).getnames()]


def wrong_inside(file):
    found = names(file)
    out = [f'{file.name}: lacks {name}' for name in NEEDED if name not in found]
    out += [f'{file.name}: has {name}' for name in found if file.suffix == '.whl' and name.startswith(UNWANTED)]
    if file.stat().st_size > LIMIT: out.append(f'{file.name}: {file.stat().st_size/1e6:.1f} MB, more than {LIMIT/1e6:.0f}')
    return out


def environment(name, file, installer, full):
    "A clean environment with the package in it: the folder of its programs."
    folder = HERE/name
    shutil.rmtree(folder, ignore_errors=True)
    what = f'thinkact_nb[train] @ {file.as_uri()}' if full else str(file)
    if installer == 'pip':
        venv.create(folder, with_pip=True)
        run(folder/'bin'/'pip', 'install', '-q', what)
    else:
        run(HERE/'bin'/'uv', 'venv', '-q', '--python', sys.executable, folder)
        run(HERE/'bin'/'uv', 'pip', 'install', '-q', '--python', folder/'bin'/'python', what)
    return folder/'bin'


def use(programs, folder, full):
    "Ask the installed package for what it can do without torch, from an empty folder."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'TQDM_DISABLE': '1'}
    for words in (*ASKED, *([FULL] if full else [])):
        said = run(programs/'thinkact', *words, cwd=folder, env=env)
        print(f"  thinkact {' '.join(words)}: {said.strip().splitlines()[-1][:100]}", flush=True)


def bare(python, wheel):
    "The wheel in a Python that has no compiler."
    folder = HERE/'bare'
    for old in (folder, HERE/'empty'): shutil.rmtree(old, ignore_errors=True)
    (HERE/'empty').mkdir()
    run(python, '-m', 'venv', folder)
    kept = {k: v for k, v in os.environ.items() if k in ('LANG', 'HOME', 'OMP_NUM_THREADS') or k.startswith(('PIP_', 'SSL', 'REQUESTS'))}
    env = kept | dict(PATH=str(folder/'bin'), CC='false', CXX='false', TQDM_DISABLE='1')

    def work():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def timed(*words):
        "Seconds that it took, of the clock and of the processor, and what it said."
        start, before = time.monotonic(), work()
        said = run(*words, cwd=HERE/'empty', env=env)
        return f'{time.monotonic() - start:.0f} s ({work() - before:.0f} of a core)', said.strip()

    installed, _ = timed(folder/'bin'/'pip', 'install', '-q', '--no-cache-dir', wheel)
    acted, _ = timed(folder/'bin'/'thinkact', 'act', '--task', 'put_on', '--arm', 'expert', '--run', 'run')
    _, said = timed(folder/'bin'/'thinkact', 'env')
    physics = [word for word in said.split('versions ')[1].split(', ') if word.startswith('pybullet')]
    timed(folder/'bin'/'python', ROOT/'tests'/'fingerprint.py')
    print(f"{run(folder/'bin'/'python', '-V').strip()}, {physics[0]}: installed in {installed}, an episode with picture and film in {acted}, fingerprint equal", flush=True)


def main(full, pythons):
    source, dist = HERE/'source', HERE/'dist'
    for folder in (source, dist): shutil.rmtree(folder, ignore_errors=True)
    tracked(source)
    run(sys.executable, '-m', 'build', '--outdir', dist, source)
    files = sorted(dist.iterdir(), reverse=True)  # wheel first
    for python in pythons: bare(python, files[0])
    if pythons: return False
    wrong = [fault for file in files for fault in wrong_inside(file)]
    for file, installer in zip(files, ('pip', 'uv')):
        print(f'{file.name}: {file.stat().st_size/1e6:.1f} MB, installed by {installer}', flush=True)
        use(environment(installer, file, installer, full), HERE/'empty', full)
    print('\n'.join(wrong) or f"wheel and sdist work{'' if full else ' without the extras; torch was not installed'}")
    return bool(wrong)


if __name__ == '__main__': sys.exit(main('--full' in sys.argv, [word for word in sys.argv[1:] if word != '--full']))
