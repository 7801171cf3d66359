/* An operator library for ONNX Runtime: example.ops::ScaledSigmoid(X; alpha) = 1 / (1 + exp(-alpha X)), float32.

   Built without ONNX Runtime's headers, which its wheel does not carry: OrtApi is a table of functions that only ever
   grows at its end, so that those used here are named by their places in it. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { API_VERSION = 10, FLOAT32 = 1 };

enum place {
    CREATE_DOMAIN = 26,
    ADD_OPERATOR = 27,
    ADD_DOMAIN = 28,
    DATA_OF = 51,
    RANK_OF = 61,
    SHAPE_OF = 62,
    COUNT_OF = 64,
    INFO_OF = 65,
    ATTRIBUTE_FLOAT = 85,
    INPUT = 90,
    OUTPUT = 91,
    RELEASE_INFO = 99
};

typedef void *(*function)();
typedef struct { const function *(*get)(uint32_t version); } base;

struct operator {
    uint32_t version;
    void *(*create)(const struct operator *, const function *api, const void *info);
    const char *(*name)(const struct operator *);
    const char *(*provider)(const struct operator *);
    int (*input_type)(const struct operator *, size_t);
    size_t (*inputs)(const struct operator *);
    int (*output_type)(const struct operator *, size_t);
    size_t (*outputs)(const struct operator *);
    void (*compute)(void *kernel, void *context);
    void (*destroy)(void *kernel);
    int (*input_kind)(const struct operator *, size_t);
    int (*output_kind)(const struct operator *, size_t);
};

enum { MOST_KERNELS = 1024, MOST_DIMS = 8 };
struct kernel { float alpha; };
static struct kernel kernels[MOST_KERNELS];
static unsigned made;
static const function *api;

static void *create(const struct operator *self, const function *table, const void *info) {
    struct kernel *kernel = &kernels[made++ % MOST_KERNELS];
    (void)self;
    kernel->alpha = 1.0f;
    table[ATTRIBUTE_FLOAT](info, "alpha", &kernel->alpha);
    return kernel;
}

static void compute(void *kernel, void *context) {
    const void *x = NULL;
    void *info = NULL, *y = NULL;
    float *from = NULL, *to = NULL;
    int64_t dims[MOST_DIMS];
    size_t rank = 0, count = 0, i;
    float alpha = ((struct kernel *)kernel)->alpha;
    api[INPUT](context, (size_t)0, &x);
    api[INFO_OF](x, &info);
    api[RANK_OF](info, &rank);
    api[SHAPE_OF](info, dims, rank);
    api[COUNT_OF](info, &count);
    api[RELEASE_INFO](info);
    api[OUTPUT](context, (size_t)0, dims, rank, &y);
    api[DATA_OF](x, (void **)&from);
    api[DATA_OF](y, (void **)&to);
    for (i = 0; i < count; i++) to[i] = 1.0f / (1.0f + expf(-alpha * from[i]));
}

static const char *name(const struct operator *self) { (void)self; return "ScaledSigmoid"; }
static const char *provider(const struct operator *self) { (void)self; return NULL; }
static int type(const struct operator *self, size_t i) { (void)self; (void)i; return FLOAT32; }
static size_t one(const struct operator *self) { (void)self; return 1; }
static int required(const struct operator *self, size_t i) { (void)self; (void)i; return 0; }
static void destroy(void *kernel) { (void)kernel; }

static const struct operator scaled_sigmoid = {
    API_VERSION, create, name, provider, type, one, type, one, compute, destroy, required, required};

void *RegisterCustomOps(void *options, const base *ort) {
    void *domain = NULL, *status;
    api = ort->get(API_VERSION);
    if ((status = api[CREATE_DOMAIN]("example.ops", &domain))) return status;
    if ((status = api[ADD_OPERATOR](domain, &scaled_sigmoid))) return status;
    return api[ADD_DOMAIN](options, domain);
}
