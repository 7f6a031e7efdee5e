"""What a page shows of an exported symbol: its name and the line that says what it does, with its signature folded below.
settings.ini names `folded` under `procs`; nbdev calls it for every cell of a page when the site is made."""
import re

DOC = re.compile(r'(?P<head>.*?)```python\n(?P<signature>.*?)```\n*(?P<line>.*)', re.S)
NO_LINE = '*Call self as a function.*'  # what Python says of a function that says nothing
LONGEST = 160                           # characters of a line of a signature


def shortened(line):
    "A parameter whose type or default is longer than anybody reads, without it."
    code, mark, comment = line.partition(', # ')
    if len(code) <= LONGEST: return line
    end = mark + comment if mark else ','
    name, _, rest = code.rstrip(',').partition(':')
    kind, equals, default = rest.rpartition('=')
    kind = f':{kind}' if equals and len(kind) <= LONGEST else ''
    return name + kind + ('=' + (default if len(default) <= LONGEST else '…') if equals else '') + end


def plain(signature):
    "A signature without the links that nbdev writes into comments: inside code they are read as they stand."
    return '\n'.join(shortened(line) for line in re.sub(r'\[(`[^`\]]+`)\]\([^)\s]+\)', r'\1', signature).splitlines())


def folded_text(text):
    "What `show_doc` gives, with its signature folded; any other text as it is."
    found = DOC.fullmatch(text)
    if not found: return text
    line = '' if found['line'].strip() == NO_LINE else found['line'].strip() + '\n\n'
    return f"{found['head']}{line}<details class=\"signature\"><summary>Signature</summary>\n\n```python\n{plain(found['signature'])}\n```\n\n</details>\n"


def folded(cell):
    "Folds what `show_doc` gave in a cell."
    if cell.cell_type != 'code' or 'show_doc(' not in cell.source: return
    for out in cell.outputs:
        markdown = out.get('data', {}).get('text/markdown')
        if markdown: out['data']['text/markdown'] = folded_text(''.join(markdown)).splitlines(True)
