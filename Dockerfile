# The demo, with NNI's page on port 8080 of this machine:
#   docker build -t nni-warmstart .
#   docker run --rm -it -p 127.0.0.1:8080:8080 nni-warmstart
FROM python:3.12-slim
WORKDIR /nni-warmstart
COPY . .
RUN pip install --no-cache-dir .
ENV OMP_NUM_THREADS=1
CMD ["python", "examples/digits/demo.py"]
