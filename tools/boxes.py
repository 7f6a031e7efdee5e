"""The picture of the house, nbs/house.svg: the boxes in which the modules lie, and an arrow for each box that takes something of another. Both are read
from the pages: `python tools/boxes.py` draws it again. It is light on dark where the reader's theme is dark."""
import ast
import math
import re
from collections import Counter
from pathlib import Path

import house
from jinja2 import Environment, FileSystemLoader

HERE = Path(__file__).parent
PICTURE = HERE.parent/'nbs'/'house.svg'
WIDTH, HIGH, ROW, TEXT = 500, 46, 58, 74  # of a box, from one to the next, characters that fit in a line of it
LANE, OUT, IN = 25, 14, 33  # from one lane to the next; where an arrow leaves a box, where one comes in
ABOUT = dict(ground='the machine and its files', keep='what a run leaves, here and on the Hub', world='table, arm, tasks, episodes', language='thinks and claims',
             model='Gemma, its stand-in, imitation', reinforce='reward, critic, PPO', measure='policies compared', turns='a second look', show='pictures and the report',
             commands='the command line')


def imports(nbs=house.NBS):
    "What each page exports and what it imports of the package, in the order of the pages: (page, module, [(module, name)])"
    for path in house.lessons(nbs):
        code = [''.join(cell['source']) for cell in house.cells(path) if cell['cell_type'] == 'code']
        module = next((m[1] for source in code for m in [re.search(r'default_exp (\w+)', source)] if m), None)
        tree = ast.parse('\n'.join(source for source in code if source.startswith('#| export')))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'thinkact_nb']
        named = [(node.module.partition('.')[2], name.name) for node in found for name in node.names]
        yield house.name_of(path, nbs), module, [(of or name, name) for of, name in named if of or name != '__version__']


def takes(nbs=house.NBS):
    "{page: the pages of which it takes something}"
    found = [*imports(nbs)]
    page_of = {module: page for page, module, _ in found if module}
    return {page: sorted({page_of[of] for of, _ in taken if of in page_of}) for page, _, taken in found}


def arrows(nbs=house.NBS):
    "{(box, other box): how many pages' imports lead from one to the other}"
    pairs = Counter((house.box(page), house.box(other)) for page, others in takes(nbs).items() for other in others)
    return {pair: n for pair, n in pairs.items() if pair[0] != pair[1] and all(pair)}


def said(nbs=house.NBS):
    "The picture in words."
    found = arrows(nbs)
    of = {box: [other for other in house.boxes(nbs) if (box, other) in found] for box in drawn_boxes(nbs)}
    return 'The house: ' + '; '.join(f'{box} takes of {", ".join(others) or "no other"}' for box, others in of.items()) + '.'


def drawn_boxes(nbs=house.NBS):
    "The boxes that hold a module, the lowest first."
    held = {house.box(page) for page, module, _ in imports(nbs) if module}
    return [box for box in house.boxes(nbs) if box in held]


def drawn(nbs=house.NBS):
    "The picture as SVG. Who takes stands above whom it takes of: a line leaves it, a dot says where the line goes down, and a bigger dot that more is taken."
    found, names = drawn_boxes(nbs), [page for page, module, _ in imports(nbs) if module]
    y = {box: 10 + ROW*i for i, box in enumerate(reversed(found))}
    pages = {box: ', '.join(name.rpartition('/')[2] for name in names if house.box(name) == box) for box in found}
    short = lambda line: line if len(line) <= TEXT else line[:TEXT].rpartition(',')[0] + ', …'
    boxes = [dict(name=box, y=y[box], about=ABOUT.get(box, ''), pages=short(pages[box])) for box in found]
    ways = arrows(nbs)
    taken = [box for box in reversed(found) if any(other == box for _, other in ways)]
    x = {box: WIDTH + 30 + LANE*i for i, box in enumerate(taken)}  # a lane leads down into each box of which something is taken
    lanes = [dict(x=x[box], top=min(y[a] for a, b in ways if b == box) + OUT, end=y[box] + IN) for box in taken]
    takers = [dict(y=y[box] + OUT, x=max(x[b] for a, b in ways if a == box)) for box in found if any(a == box for a, _ in ways)]
    dots = [dict(x=x[b], y=y[a] + OUT, r=f'{2.2 + math.log2(n)/2:.1f}') for (a, b), n in sorted(ways.items())]
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return env.get_template('boxes.svg.jinja').render(boxes=boxes, lanes=lanes, takers=takers, dots=dots, width=WIDTH, high=HIGH, tall=ROW*len(found) + 10, alt=said(nbs))


if __name__ == '__main__': PICTURE.write_text(drawn(), encoding='utf-8')
