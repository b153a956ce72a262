"Installation of `capdec`; every value comes from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='])
cfg.read(here/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
readme = here/'README.md'
extras = {k: cfg[f'{k}_requirements'].split() for k in cfg['extras'].split()}
extras['all'] = sorted({o for v in extras.values() for o in v})
extras |= {k: cfg[f'{k}_requirements'].split() for k in cfg['extras_apart'].split()}
extras['dev'] = cfg['dev_requirements'].split()
pythons = ['3', *(f'3.{n}' for n in range(int(cfg['min_python'].split('.')[1]), int(cfg['max_python'].split('.')[1]) + 1))]
status = {'2': '2 - Pre-Alpha', '3': '3 - Alpha', '4': '4 - Beta', '5': '5 - Production/Stable'}[cfg['status']]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'] or None, url=cfg['home'], license='Apache-2.0',
    project_urls={'Source': cfg['home'], 'Issues': f"{cfg['home']}/issues",
        'Changelog': f"{cfg['home']}/blob/{cfg['branch']}/CHANGELOG.md"} if cfg['home'] else {},
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    packages=find_packages(include=['capdec', 'capdec.*']), include_package_data=False,
    package_data={'capdec': cfg['package_data'].split()},
    python_requires='>=' + cfg['min_python'], install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    classifiers=[f'Development Status :: {status}', 'Environment :: Console', 'Framework :: Jupyter',
                 f"Intended Audience :: {cfg['audience']}", 'Intended Audience :: Science/Research',
                 *(f'Programming Language :: Python :: {o}' for o in pythons),
                 'Topic :: Scientific/Engineering :: Artificial Intelligence', 'Topic :: Text Processing :: Linguistic',
                 'Typing :: Typed'],
    zip_safe=False,
)
