"""Whole commands of other toolkits that train one network on one folder of images: one script each, as its
documentation writes it. They run in an environment of their own, made by `python -m bench peers --setup`."""
