// Forward and backward pass of a run of stages over a whole window, as call.py calls them.
#include "stbp/ops/native/api.h"
#include "stbp/ops/synapse/conv_back.h"

using namespace stbp;

namespace {

// The stages that were ordered, with what follows: lookups where they will do, sizes, and where each leaves what.
struct Run {
    std::vector<Stage> stages;
    std::array<Bytes, 2> kept;    // sizes

    Run(const Window& w, const StageOrder* orders, int n) {
        for (int i = 0; i < n; i++) {
            Stage s{orders[i], orders[i].H, orders[i].W, nullptr, nullptr, nullptr};
            if (s.kind == Kind::LINEAR) s.OH = s.OW = 1;
            if (s.kind == Kind::CONV) {
                s.OH = (s.PH() + 2 * s.pad - s.k) / s.stride + 1, s.OW = (s.PW() + 2 * s.pad - s.k) / s.stride + 1;
                if (i == 0 && s.fires && looks_up(s)) s.kind = Kind::LOOKUP;
            }
            stages.push_back(s);
        }
        kept = lay_out(w, stages);
    }
    const Stage* before(int i) const { return i ? &stages[i - 1] : nullptr; }
};

}  // namespace

// Bytes of the structures that call.py mirrors.
STBP_API int stbp_size_of_stage() { return sizeof(StageOrder); }
STBP_API int stbp_size_of_window() { return sizeof(Window); }
STBP_API int stbp_size_of_report() { return sizeof(Report); }

// The names of what runs, in the order of `Path`.
STBP_API const char* stbp_paths() {
#define STBP_NAME(path, name) "," name
    return &(STBP_PATHS(STBP_NAME))[1];
#undef STBP_NAME
}

// Bytes that the run needs for its two tensors, w.kept, at any T and B: fixed, for a sample, for a step of a sample.
STBP_API void stbp_chain_kept(const StageOrder* orders, int n, int save, int64_t (*bytes)[3]) {
    Window w{};
    w.save = save;
    Run run(w, orders, n);
    for (int i = 0; i < 2; i++) {
        Bytes size = run.kept[i];
        bytes[i][0] = size.fixed, bytes[i][1] = size.sample, bytes[i][2] = size.step;
    }
}

STBP_API void stbp_chain_forward(const Window* window, const StageOrder* orders, int n) {
    const Window& w = *window;
    Run run(w, orders, n);
    for (int i = 0; i < n; i++) {
        const Stage& s = run.stages[i];
        bool last = i == n - 1;
        switch (s.kind) {
            case Kind::CURRENT: current_forward(w, s, last); continue;
            case Kind::LINEAR: linear_forward(w, s, run.before(i), last, w.report[i]); continue;
            case Kind::CONV: conv_forward(w, s, run.before(i), last, w.report[i]); continue;
            case Kind::LOOKUP: lookup_forward(w, s, last, w.report[i]); continue;
        }
        unknown("a stage of kind", (long long)s.kind);
    }
}

STBP_API void stbp_chain_backward(const Window* window, const StageOrder* orders, int n) {
    const Window& w = *window;
    Run run(w, orders, n);
    Sent sent;
    Upper up;
    int i = n - 1;
    for (; i >= 0 && run.stages[i].kind == Kind::LINEAR; i--) {
        Sent own;
        linear_back(w, run.stages[i], run.before(i), up, i ? &own : nullptr, w.report[i]);
        sent = std::move(own);
        up = {&run.stages[i], &sent};
    }
    if (i >= 0) maps_back(w, run.stages.data(), i + 1, up);
}
