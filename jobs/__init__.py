"""What runs on Ray and from the shell; `yolact.*` is the model library these jobs compose."""
