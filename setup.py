"Installs what settings.ini says."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser()
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']


def needs(key): return [o.strip() for o in cfg[key].splitlines() if o.strip()]


name, readme = cfg['lib_name'], here/'README.md'
extras = {o: needs(f'{o}_requirements') for o in ('train', 'tune', 'ray', 'notebook', 'dev')}
extras['dev'] = sum(extras.values(), [])

setup(
    name=name, version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    python_requires='>=' + cfg['min_python'],
    packages=find_packages(include=[name, name + '.*']),
    package_data={name: ['standin/*', 'standin/run/**/*', 'standin/turns/*', 'tables/**/*', 'templates/*']}, zip_safe=False,
    install_requires=needs('requirements'), extras_require=extras,
    entry_points={'console_scripts': needs('console_scripts'), 'nbdev': [f'{name}={name}._modidx:d']},
)
