"""What a model class uses of TensorRT 10's Python package: data types, by name."""

int32 = "int32"
float32 = "float32"
int8 = "int8"
fp8 = "fp8"
