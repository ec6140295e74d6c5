"""One command of `clcr-edge` per module. Importing them is cheap: what a command needs, it imports when it runs."""
