"""What somebody who has just installed the package sees: their first commands and the README's Python, each from an empty folder,
with exit status, seconds and what was printed, in receipts/first_commands.md.

    .venv/bin/python tools/first_commands.py [--only WORD]

Fails if one of them fails. What differs between machines is left out of what was printed: folders, kernel, times, progress bars."""
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import thinkact_nb
from thinkact_nb.env import hardware

HERE = Path(__file__).parent
ROOT = HERE.parent
RECEIPT = ROOT/'receipts'/'first_commands.md'
COMMANDS = ('thinkact --version', 'thinkact env', 'thinkact act --task put_on --seed 7', 'thinkact data --n 9',
            'thinkact data --n 9 && thinkact eval --arms expert --n 9')


def python_of(readme):
    "The Python of the README's part on the library: its block as it stands, and after it the environment that the text names."
    part = readme.partition('## As a library')[2].partition('\n## ')[0]
    [block] = re.findall(r'(?s)``` ?python\n(.*?)```', part)
    [environment] = re.findall(r'`(gymnasium\.make\(.*?\))`', part)
    return block, f'import gymnasium, thinkact_nb.tasks\n{environment}.reset(seed=7)\n'


def plain(said, folder):
    "What was printed, without what another machine or another day prints."
    said = re.sub(r'(?m)^.*\d%\|.*\n?', '', said)
    said = re.sub(r'\x1b\[[0-9;]*m', '', said.replace(f'{folder}/', '').replace(str(folder), '.').replace(str(Path(sys.prefix)), '…'))
    said = re.sub(r'(Linux|macOS|Windows)-[\w.+-]+', r'\1', said)
    return re.sub(r'\b\d+(\.\d+)?( ?)(s|seconds|minutes)\b', r'…\2\3', said).strip()


def tried(name, command, steps):
    "A command, or several in turn, in a folder of its own, with nobody logged in: how it ended."
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | dict(HF_HOME=f'{folder}/.hub', TQDM_DISABLE='1', TOKENIZERS_PARALLELISM='false', COLUMNS='100')
        begun = time.monotonic()
        said, status = '', 0
        for words in steps:
            done = subprocess.run(words, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')
            said, status = said + done.stdout, done.returncode
            if status: break
        seconds = time.monotonic() - begun
        made = sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob('*') if p.is_file() and '.hub' not in p.parts)
        return dict(name=name, command=command, status=status, seconds=seconds, said=plain(said, folder), made=made)


def wanted():
    "(name, as a reader sees it, as it is run) of everything that is tried"
    script = str(Path(sys.executable).with_name('thinkact'))
    for command in COMMANDS: yield f'`{command}`', command, [[script, *shlex.split(step)[1:]] for step in command.split(' && ')]
    for name, block in zip(("the README's Python", 'and its Gymnasium environment'), python_of((ROOT/'README.md').read_text(encoding='utf-8'))):
        yield name, block.strip(), [[sys.executable, '-c', block]]


def main(only=''):
    rows = [tried(*one) for one in wanted() if only in one[1]]
    for r in rows: print(f'{r["status"]:3} {r["seconds"]:6.1f} s  {r["name"]}')
    env = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    machine = hardware()
    about = dict(day=date.today(), version=thinkact_nb.__version__, cores=machine['cpus'], memory=machine['memory'], python=platform.python_version())
    if not only: RECEIPT.write_text(env.get_template('first_commands.md.jinja').render(about, rows=rows), encoding='utf-8')
    return any(r['status'] for r in rows)


if __name__ == '__main__': sys.exit(main(*sys.argv[2:] if sys.argv[1:2] == ['--only'] else ()))
