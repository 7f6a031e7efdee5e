"""Runs notebooks in order and keeps their outputs, without progress bars. With no names: all of nbs/ that carry a number.
Cells that nbdev_test leaves out keep the outputs they have."""
import re
import subprocess
import sys
import time
from pathlib import Path

from nbdev.config import get_config

BAR = re.compile(r'\d+%\|.*\|')
TEXTS = ('text/', 'image/svg')  # kept as lists of lines, so that a change shows as a changed line
WIDGET = 'application/vnd.jupyter.widget-view+json'


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


def run(path, flags):
    "Runs one notebook in this process and writes its outputs back; a failed cell leaves the file as it was."
    from execnb.nbio import write_nb
    from execnb.shell import CaptureShell
    from nbdev.process import NBProcessor, read_nb
    nb = read_nb(path)
    directives = [getattr(c, 'directives_', None) or {} for c in NBProcessor(path).nb.cells]
    shell = CaptureShell(path, mpl_format='png')
    for cell, d in zip(nb.cells, directives):
        if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: continue
        if left_out(d, flags): continue
        cell.outputs = []
        shell.cell(cell)
        if shell.exc: sys.exit(f'{path.name}: cell {cell.idx_} ({cell.id}): {type(shell.exc).__name__}: {shell.exc}')
        cell.outputs = tidy(cell.outputs)
    write_nb(nb, path)


if __name__ == '__main__':
    cfg = get_config()
    if sys.argv[1:2] == ['--one']:
        sys.path.insert(0, str(cfg.config_path))
        run(Path(sys.argv[2]), set(cfg.tst_flags.split()))
        sys.exit()
    names = [Path(o).resolve() for o in sys.argv[1:]] or sorted(cfg.nbs_path.glob('[0-9]*.ipynb'))
    for path in names:
        start = time.time()
        if subprocess.run([sys.executable, Path(__file__).resolve(), '--one', path], cwd=path.parent).returncode: sys.exit(1)
        size = path.stat().st_size / 1e6
        print(f'{path.name}: {time.time() - start:.0f} s, {size:.2f} MB' + (': too large to review, keep it under 0.5 MB' if size > .5 else ''))
