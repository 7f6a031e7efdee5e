"""Numbers in prose against what the pages computed. A number that stands in a sentence of a notebook must be found in an output or in the code of a page
(rounded as it is written; a share may be written as a percentage), or in tools/numbers.txt with the reason why it can be found nowhere.
`make notebooks` ends with it, so that outputs that were made again and sentences that were not are found.
--write puts what is not found into tools/numbers.txt, with no reason yet: look at each."""
import json
import math
import re
import sys
from pathlib import Path

import house

ROOT = Path(__file__).parent.parent
KNOWN = Path(__file__).parent/'numbers.txt'
# what is no quantity: code, links and their addresses, formulas, names such as L0 and 06_ppo, headings, tables of arXiv numbers; and what tools/front.py writes
NOT_PROSE = [r'(?s)<!-- front -->.*?<!-- /front -->', r'(?s)```.*?```', r'`[^`]*`', r'(?s)\$\$.*?\$\$', r'\$[^$\n]+\$', r'<[^>]+>', r'(?<=\])\([^)]*\)', r'\[[\d.]+\]', r'https?://\S+', r'(?m)^#.*$', r'(?m)^\s*\d+\. ']
NUMBER = re.compile(r'(?<![\w.,/-])[−+-]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:\s*(%))?(?![\w/]|\.\d|,\d{3})')
VALUE = re.compile(r'(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')
SMALL = 12  # counts up to here are language: "two ways", "step 3"


def text(x): return x if isinstance(x, str) else ''.join(x)


def prose(source):
    "A markdown cell without what is no sentence."
    for pattern in NOT_PROSE: source = re.sub(pattern, ' ', source)
    return source


def numbers(sentence):
    "(as written, value, decimals, whether it is a percentage) of each number in a text."
    for m in NUMBER.finditer(sentence):
        yield m[0].strip(), float(m[1].replace(',', '') + (m[2] or '')), len(m[2] or '.') - 1, bool(m[3])


def values(nb):
    "Every number in a notebook's code and outputs."
    found = set()
    for cell in nb['cells']:
        if cell['cell_type'] != 'code': continue
        said = [text(cell['source'])]
        for out in cell['outputs']:
            data = out.get('data', {})
            said += [text(out.get('text', ''))] + [text(data[k]) for k in ('text/plain', 'text/html', 'text/markdown') if k in data and len(text(data[k])) < 100_000]
        said = [re.sub(r'(?s)<style>.*?</style>|data:[\w/+-]+;base64,[\w+/=]*', '', part) for part in said]  # neither a picture's bytes nor colours are numbers
        for part in said: found |= {abs(float(v)) for v in VALUE.findall(re.sub(r'(?<=\d),(?=\d{3}\b)|(?<=\d)_(?=\d)', '', part))}
    return found


def computed(values, number, decimals, percent):
    "Whether one of the values is written so. A share may stand for a percentage or for points."
    step = 10.**-decimals/2*(1 + 1e-9)
    scales = (1, 100) if percent or decimals == 0 and number < 100 else (1,)
    return any(math.isclose(v*scale, number, rel_tol=0, abs_tol=step) for v in values for scale in scales)


def unfounded(notebooks, nbs=house.NBS):
    "{notebook: [(number as written, the words around it)]}: numbers of prose that no page computes."
    pages = {f'{house.name_of(path, nbs)}.ipynb': json.loads(path.read_text(encoding='utf-8')) for path in notebooks}
    known = {name: values(nb) for name, nb in pages.items()}
    everywhere = set().union(*known.values())
    out = {}
    for name, nb in pages.items():
        for cell in nb['cells']:
            if cell['cell_type'] != 'markdown': continue
            page = name.removesuffix('.ipynb')
            links = [f'{house.linked(url, page)}.ipynb' for url in re.findall(r'\(([\w./]+\.ipynb)', text(cell['source']))]
            near = everywhere if name == 'index.ipynb' else set().union(known[name], *(known[n] for n in links if n in known))
            said = prose(text(cell['source']))
            for m in NUMBER.finditer(said):
                [(written, number, decimals, percent)] = list(numbers(said[:m.end()][m.start():])) or [(None,)*4]
                if written is None or number <= SMALL and not decimals and not percent: continue
                if not computed(near, number, decimals, percent): out.setdefault(name, []).append((written, ' '.join(said[max(0, m.start() - 45):m.end() + 30].split())))
    return out


def ledger():
    "{(notebook, number): reason} of tools/numbers.txt: `notebook | number | reason`."
    if not KNOWN.exists(): return {}
    rows = (line.split('|', 2) for line in KNOWN.read_text(encoding='utf-8').splitlines() if line.strip() and not line.startswith('#'))
    return {(name.strip(), number.strip()): reason.strip() for name, number, reason in rows}


def said_by(path):
    "The numbers that a notebook's prose writes."
    return {written for cell in house.cells(path) if cell['cell_type'] == 'markdown' for written, *_ in numbers(prose(text(cell['source'])))}


def main(write):
    found, known = unfounded(map(house.path_of, house.names())), ledger()
    new = [(name, number, around) for name, some in found.items() for number, around in dict(some).items() if not known.get((name, number))]
    said = {f'{name}.ipynb': said_by(house.path_of(name)) for name in house.names()}
    gone = [(name, number) for name, number in known if number not in said.get(name, ())]  # one that a page has by luck today stays
    for name, number, around in new: print(f'nbs/{name}: {number} is computed nowhere near: … {around} …')
    for name, number in gone: print(f'tools/numbers.txt: {name} has no {number} any more: take the line out')
    if write: KNOWN.write_text(''.join(f'{name} | {number} | {known.get((name, number), "")}\n' for name, some in found.items() for number in dict(some)), encoding='utf-8')
    print(f'{sum(map(len, found.values()))} numbers of prose are computed nowhere near, {len(new)} of them for no reason that is given')
    return bool(new or gone)


if __name__ == '__main__': sys.exit(main('--write' in sys.argv))
