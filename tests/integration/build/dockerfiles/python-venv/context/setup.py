from setuptools import setup

setup(
    name="greetings",
    version="1.0",
    packages=["greetings"],
    entry_points={"console_scripts": ["greet=greetings:main"]},
)
