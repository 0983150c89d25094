"""The protobuf package `unspool`."""
