"""What is published: wheel and sdist, built from the files that git tracks, each installed in a clean environment (the wheel by pip, the sdist by uv)
without the extras, and asked for what needs no torch: version, help, demonstrations, an episode, a page from a template.
`make release-check` runs it in .release. With --full the extra `train` is installed too (about 7 GB) and the shipped policy acts."""
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT/'.release'
NEEDED = ('thinkact_nb/templates/report.html', 'thinkact_nb/templates/style.css', 'thinkact_nb/standin/model.safetensors',
          'thinkact_nb/standin/run/rl/ppo/adapter_model.safetensors', 'thinkact_nb/standin/turns/adapter_model.safetensors', 'thinkact_nb/tables/episodes.parquet', 'thinkact_nb/cli.py')
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


def main(full):
    source, dist = HERE/'source', HERE/'dist'
    for folder in (source, dist): shutil.rmtree(folder, ignore_errors=True)
    tracked(source)
    run(sys.executable, '-m', 'build', '--outdir', dist, source)
    files = sorted(dist.iterdir(), reverse=True)  # wheel first
    wrong = [fault for file in files for fault in wrong_inside(file)]
    for file, installer in zip(files, ('pip', 'uv')):
        print(f'{file.name}: {file.stat().st_size/1e6:.1f} MB, installed by {installer}', flush=True)
        use(environment(installer, file, installer, full), HERE/'empty', full)
    print('\n'.join(wrong) or f"wheel and sdist work{'' if full else ' without the extras; torch was not installed'}")
    return bool(wrong)


if __name__ == '__main__': sys.exit(main('--full' in sys.argv))
