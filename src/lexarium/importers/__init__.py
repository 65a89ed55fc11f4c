"""From other code bases' configurations and command lines to run files of ours, one file per code base."""
