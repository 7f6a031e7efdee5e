"""The picture of the house, nbs/house.svg: the boxes in which the modules lie, and an arrow for each box that takes
something of another. Both are read from the pages: `python tools/boxes.py` draws it again. It is light on dark where
the reader's theme is dark."""
import ast
import math
import re
from collections import Counter
from pathlib import Path

import house
from jinja2 import Environment, FileSystemLoader

HERE = Path(__file__).parent
PICTURE = HERE.parent/'nbs'/'house.svg'
WIDTH = 500  # of a box, from one to the next, characters that fit in a line of it
HIGH = 46
ROW = 58
TEXT = 74
LANE = 25  # from one lane to the next; where an arrow leaves a box, where one comes in
OUT = 14
IN = 33
ABOUT = dict(
    ground='the machine and its files',
    keep='what a run leaves, here and on the Hub',
    world='table, arm, tasks, episodes',
    language='thinks and claims',
    model='Gemma, its stand-in, imitation',
    reinforce='reward, critic, PPO',
    measure='policies compared',
    turns='a second look',
    show='pictures and the report',
    commands='the command line')


def imported(code):
    "(module, name) of everything that a page's exported cells import of the package."
    tree = ast.parse('\n'.join(source for source in code if source.startswith('#| export')))
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (node.module or '').split('.')[0] != 'thinkact_nb': continue
        of = node.module.partition('.')[2]
        for name in node.names:
            if of or name.name != '__version__': yield of or name.name, name.name


def imports(nbs=house.NBS):
    "What each page exports and what it imports, in the order of the pages: (page, module, [(module, name)])"
    for path in house.lessons(nbs):
        code = [''.join(cell['source']) for cell in house.cells(path) if cell['cell_type'] == 'code']
        exports = re.search(r'default_exp (\w+)', '\n'.join(code))
        yield house.name_of(path, nbs), exports[1] if exports else None, [*imported(code)]


def takes(nbs=house.NBS):
    "{page: the pages of which it takes something}"
    found = [*imports(nbs)]
    page_of = {module: page for page, module, _ in found if module}
    return {page: sorted({page_of[of] for of, _ in taken if of in page_of}) for page, _, taken in found}


def arrows(nbs=house.NBS):
    "{(box, other box): how many pages' imports lead from one to the other}"
    pairs = Counter((house.box(page), house.box(other)) for page, others in takes(nbs).items() for other in others)
    return {(a, b): n for (a, b), n in pairs.items() if a and b and a != b}


def pages_of_boxes(nbs=house.NBS):
    "{box: its pages that make a module}, the lowest box first."
    found = {}
    for page, module, _ in imports(nbs):
        if module and house.box(page): found.setdefault(house.box(page), []).append(page)
    return {box: found[box] for box in house.boxes(nbs) if box in found}


def said(nbs=house.NBS):
    "The picture in words."
    ways, boxes = arrows(nbs), pages_of_boxes(nbs)
    of = {box: ', '.join(other for other in boxes if (box, other) in ways) for box in boxes}
    return 'The house: ' + '; '.join(f'{box} takes of {others or "no other"}' for box, others in of.items()) + '.'


def line_of(pages):
    "The pages of a box in one line, as many as fit."
    line = ', '.join(page.rpartition('/')[2] for page in pages)
    return line if len(line) <= TEXT else line[:TEXT].rpartition(',')[0] + ', …'


def drawn(nbs=house.NBS):
    """The picture as SVG. Who takes stands above whom it takes of. A line leaves it to the right, and a lane leads down
    into each box; a dot says that the line goes down that lane, and a bigger one that more is taken."""
    ways, found = arrows(nbs), pages_of_boxes(nbs)
    y = {box: 10 + ROW*i for i, box in enumerate(reversed(found))}
    boxes = [dict(name=box, y=y[box], about=ABOUT.get(box, ''), pages=line_of(pages)) for box, pages in found.items()]
    takers = {box: [b for a, b in ways if a == box] for box in found}
    taken = {box: [a for a, b in ways if b == box] for box in reversed(found)}
    x = {box: WIDTH + 30 + LANE*i for i, box in enumerate(box for box in taken if taken[box])}
    lines = [dict(y=y[box] + OUT, x=max(x[b] for b in of)) for box, of in takers.items() if of]
    lanes = [dict(x=x[box], top=min(y[a] for a in taken[box]) + OUT, end=y[box] + IN) for box in x]
    dots = [dict(x=x[b], y=y[a] + OUT, r=f'{2.2 + math.log2(n)/2:.1f}') for (a, b), n in sorted(ways.items())]
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    size = dict(width=WIDTH, high=HIGH, tall=ROW*len(found) + 10)
    return env.get_template('boxes.svg.jinja').render(boxes=boxes, lines=lines, lanes=lanes, dots=dots, alt=said(nbs), **size)


if __name__ == '__main__': PICTURE.write_text(drawn(), encoding='utf-8')
