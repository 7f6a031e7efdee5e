"""The picture of the whole chain, nbs/pipeline.svg, from a template: `python tools/pipeline.py`. It is light on dark where the reader's theme is dark."""
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

HERE = Path(__file__).parent
STAGES = (  # page, name, what comes out, colour
    ('01', 'Scenes', ('an image, an instruction', 'nine tasks, levels L0 to L4'), 'world'),
    ('02', 'Demonstrations', ('<think> … </think>', '<action> pick … place …'), 'world'),
    ('03, 04', 'SFT', ('QLoRA on Gemma 3n', 'writes like the expert'), 'model'),
    ('05, 06', 'PPO', ('simulator rewards the act,', 'credit reaches the think'), 'model'),
    ('07', 'Evaluation', ('same scenes for all,', 'thinks exchanged'), 'result'),
    ('09', 'Report', ('rates with intervals,', 'cases, film, cost'), 'result'))
WIDTH = 220
GAP = 36
ROW = 150
ALT = ('The chain: scenes become demonstrations, these an SFT adapter, this a PPO adapter; the policies are evaluated on the same test scenes, '
       'and a report is written.')


def drawn():
    "The picture as SVG."
    boxes = [dict(page=page, name=name, lines=lines, kind=kind, x=(i % 3)*(WIDTH + GAP) + 10, y=i//3*ROW + 10) for i, (page, name, lines, kind) in enumerate(STAGES)]
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return env.get_template('pipeline.svg.jinja').render(boxes=boxes, width=WIDTH, gap=GAP, row=ROW, alt=ALT)


if __name__ == '__main__': (HERE.parent/'nbs'/'pipeline.svg').write_text(drawn(), encoding='utf-8')
