"""Runs notebooks in order and keeps their outputs, without progress bars, and says which of them say something else than before. With no names: start and
every page of the sidebar, in its order. Each runs in nbs/, whatever its folder. Cells that nbdev_test leaves out keep the outputs they have.
With --check nothing is kept: outputs whose text is not what the code gives are named, and one is enough to fail; --fast: of the pages that take seconds,
two at a time. --names: these pages, as nbdev_test leaves them out."""
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import house
from nbdev.config import get_config

BAR = re.compile(r'\d+%\|.*\|')
TEXTS = ('text/', 'image/svg')  # kept as lists of lines, so that a change shows as a changed line
WIDGET = 'application/vnd.jupyter.widget-view+json'
# pages whose outputs hang on no model's arithmetic, which another processor rounds otherwise, and which take seconds
FAST = ('ground/files', 'keep/hub', 'keep/store', 'keep/checkpoints', '01_sim', 'world/tasks', 'reinforce/credit', 'reinforce/long_run', 'reinforce/what_pays', 'commands/options')
VARIES = Path(__file__).parent/'varies.txt'
# what a machine, a moment or a library's version decides: addresses, temporary folders, times, sizes of memory, pictures, names that pandas makes up
DIFFERS = [(r'(?s)<style.*?</style>|data:[\w/+-]+;base64,[\w+/=]*|\bT_[0-9a-f]{5}\w*', ''), (r'(?: at)? \b0x[0-9a-fA-F]+', ''), (r'/(?:tmp|home|root|Users|content|private|var|work)/[\w./+~-]*', '…'),
           (r'\btmp\w{8}\b', '…'), (r'\b\d+(?:\.\d+)?(?= ?(?:s|ms|seconds?|minutes?|GB|GiB|MB)\b)', '…')]
NUMBER = re.compile(r'-?\d+\.\d+(?:e[+-]?\d+)?')
CLOSE = 1e-3  # of a number with decimals, which other processors round otherwise


def settled(text):
    "What a terminal shows in the end: text that a carriage return wrote over, and progress bars, are gone."
    lines = (o.rsplit('\r', 1)[-1] for o in ''.join(text).replace('\r\n', '\n').split('\n'))
    return '\n'.join(o for o in lines if not BAR.search(o)).strip('\n')


def tidy(outputs):
    "Outputs worth keeping."
    kept = []
    for o in outputs:
        if o.get('name') == 'stderr': continue  # warnings of libraries, with paths of this machine
        if o['output_type'] == 'stream':
            if not (body := settled(o['text'])): continue
            o['text'] = (body + '\n').splitlines(True)
        elif WIDGET in o.get('data', {}) and BAR.search(''.join(o['data'].get('text/plain', ''))): continue
        data = o.get('data', {})
        data |= {kind: body.splitlines(True) for kind, body in data.items() if isinstance(body, str) and kind.startswith(TEXTS)}
        kept.append(o)
    return kept


def left_out(directives, flags):
    "Whether nbdev_test leaves a cell out. `#| eval: false` is {'eval:': ['false']} in nbdev 2 and {'eval': 'false'} in nbdev 3."
    said = directives.get('eval:', directives.get('eval', ''))
    return ''.join(said).lower() == 'false' or bool(flags & directives.keys())


def said(outputs):
    "The text of outputs, without what legitimately differs."
    parts = []
    for o in outputs:
        data = o.get('data', {})
        kinds = ['text/markdown', 'text/html'] if ''.join(data.get('text/plain', '<')).startswith('<') else ['text/plain']
        parts += [''.join(o['text'])] if 'text' in o else [''.join(data[kind]) for kind in kinds if kind in data]
    text = '\n'.join(part.rstrip('\n') for part in parts)
    for pattern, instead in DIFFERS: text = re.sub(pattern, instead, text)
    return ' '.join(text.split())


def alike(a, b):
    "Whether two texts say the same; numbers with decimals may differ in the last digits."
    if NUMBER.sub('#', a) != NUMBER.sub('#', b): return False
    pairs = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)))
    return all(abs(x - y) <= CLOSE*max(1., abs(x), abs(y)) for x, y in pairs)


def varying():
    "{(page, cell)} of tools/varies.txt: `page | cell id | reason`."
    rows = (line.split('|') for line in VARIES.read_text(encoding='utf-8').splitlines() if line.strip() and not line.startswith('#'))
    return {(page.strip(), cell.strip()) for page, cell, _ in rows}


def run(path, flags, check=False):
    "Runs one notebook in this process and writes its outputs back, unless it only checks: the cells that said something else; a failed cell leaves the file as it was."
    from execnb.nbio import write_nb
    from execnb.shell import CaptureShell
    from nbdev.process import NBProcessor, read_nb
    nb = read_nb(path)
    directives = [getattr(c, 'directives_', None) or {} for c in NBProcessor(path).nb.cells]
    shell, other = CaptureShell(path, mpl_format='png'), []
    for cell, d in zip(nb.cells, directives):
        if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: continue
        if left_out(d, flags): continue
        before, cell.outputs = said(cell.outputs), []
        shell.cell(cell)
        if shell.exc: sys.exit(f'{path.name}: cell {cell.idx_} ({cell.id}): {type(shell.exc).__name__}: {shell.exc}')
        cell.outputs = tidy(cell.outputs)
        now = said(cell.outputs)
        if not alike(before, now) and (house.name_of(path, get_config().nbs_path), cell.id) not in varying(): other.append((cell.id, before, now))
    if not check: write_nb(nb, path)
    return other


def first_difference(a, b):
    "What stands where two texts part."
    i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f'{a[max(0, i - 20):i + 40]!r} is now {b[max(0, i - 20):i + 40]!r}'


if __name__ == '__main__':
    cfg, options = get_config(), {o for o in sys.argv[1:] if o.startswith('--')}
    names = [o for o in sys.argv[1:] if not o.startswith('--')]
    if '--one' in options:
        sys.path.insert(0, str(cfg.config_path))
        path = Path(names[0])
        other = run(path, set(cfg.tst_flags.split()), '--check' in options)
        for cell, before, now in other: print(f'{path.name}: cell {cell} says something else: {first_difference(before, now)}')
        sys.exit(2 if other else 0)
    if '--names' in options: sys.exit(print('^(' + '|'.join(name.rpartition('/')[2] for name in FAST) + r')\.ipynb$'))
    fast = [house.path_of(name, cfg.nbs_path) for name in FAST] if '--fast' in options else None
    paths = [Path(o).resolve() for o in names] or fast or house.pages(cfg.nbs_path)

    def one(path):
        "Runs a page in a process of its own: (exit status, what it printed and how long it took)"
        start, words = time.time(), ['--one', *sorted(options & {'--check'}), path]
        done = subprocess.run([sys.executable, Path(__file__).resolve(), *words], cwd=cfg.nbs_path, text=True, encoding='utf-8', capture_output='--check' in options)
        size = path.stat().st_size / 1e6
        told = f'{path.name}: {time.time() - start:.0f} s, {size:.2f} MB' + (': too large to review, keep it under 0.5 MB' if size > .5 else '')
        failed = done.returncode not in (0, 2)
        return done.returncode, (done.stdout or '') + (done.stderr or '') * failed + told * (not failed)

    stale = []
    with ThreadPoolExecutor(2 if '--check' in options else 1) as pool:  # what is kept is made in order, for pages may hang on each other's files
        for path, (status, told) in zip(paths, pool.map(one, paths)):
            if told: print(told, flush=True)
            if status not in (0, 2):
                pool.shutdown(cancel_futures=True)
                sys.exit(1)
            if status: stale.append(house.name_of(path, cfg.nbs_path))
    if '--check' in options and stale: sys.exit(f'not what the code gives: {", ".join(stale)}; run `make notebooks` and look at what changed')
