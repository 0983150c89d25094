"""The wire protocol: message definitions, generated code, the codec, and shared gRPC code."""
