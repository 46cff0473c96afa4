"""The parts of `yolact report`: numbers of the whole table, a sample of pictures, what to look at first, the page."""
