"""Two rules that the linter does not know, for modules, lessons, tests and tools: one line says one thing.

    python tools/dialect.py  # names each line that breaks one

1. No assignment binds three names or more at once, unless it unpacks one value: `a, b, c = 1, 2, 3` is three lines, `a, b, c = row` is one.
2. Calls are no statements inside a tuple: `draw(), label()` is two lines. A lesson's last line may show two values."""
import ast
import sys
from pathlib import Path

import house

ROOT = Path(__file__).parent.parent
FOLDERS = ('tests', 'tools', 'benchmark', 'space')


def python_of(source):
    "A cell's source without what only a notebook can say."
    lines = source.split('\n')
    magic = [line.lstrip().startswith(('%', '!')) for line in lines]
    return '\n'.join(line[:len(line) - len(line.lstrip())] + 'pass' if is_magic else line for line, is_magic in zip(lines, magic))


def binds_many(node):
    "Whether a statement binds three names or more, each to a value of its own."
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)): return False
    return any(isinstance(target, ast.Tuple) and len(target.elts) > 2 for target in node.targets)


def calls_in_tuple(node):
    "Whether a statement is a tuple of which a part is a call."
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple) and any(isinstance(part, ast.Call) for part in node.value.elts)


def faults(source, lesson=False):
    "(line, what is wrong) of a source; the last value of a lesson is shown, unless a semicolon hides it."
    tree = ast.parse(python_of(source))
    shown = tree.body[-1] if lesson and tree.body and not source.rstrip().endswith(';') else None
    for node in ast.walk(tree):
        if binds_many(node): yield node.lineno, 'binds three names or more at once: give each a line'
        if node is not shown and calls_in_tuple(node): yield node.lineno, 'calls in a tuple: give each a line'


def sources(root):
    "(where, source, whether it is a lesson) of everything that is written by hand."
    for path in house.files(root/'nbs'):
        for cell in house.cells(path):
            if cell['cell_type'] == 'code': yield f'{path.relative_to(root)}, cell {cell["id"]}', ''.join(cell['source']), True
    for path in sorted(path for folder in FOLDERS for path in (root/folder).rglob('*.py')):
        yield str(path.relative_to(root)), path.read_text(encoding='utf-8'), False


if __name__ == '__main__':
    sys.exit('\n'.join(f'{where}, line {line}: {what}' for where, source, lesson in sources(ROOT) for line, what in faults(source, lesson)) or None)
