package compose

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
)

// loading guards logrus' standard logger, the only way by which compose-go
// tells its warnings.
var loading sync.Mutex

var unset = regexp.MustCompile(`^The "(.*)" variable is not set`)

// captureWarnings makes compose-go's warnings the load's own until the
// returned function is called.
func (l *load) captureWarnings() (restore func()) {
	loading.Lock()
	std := logrus.StandardLogger()
	out, level := std.Out, std.GetLevel()
	hooks := std.ReplaceHooks(logrus.LevelHooks{})
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	std.AddHook(hook{l})
	return func() {
		std.ReplaceHooks(hooks)
		std.SetLevel(level)
		std.SetOutput(out)
		loading.Unlock()
	}
}

type hook struct{ *load }

// Levels is that of a logrus hook.
func (hook) Levels() []logrus.Level { return []logrus.Level{logrus.WarnLevel} }

// Fire is that of a logrus hook.
func (h hook) Fire(e *logrus.Entry) error {
	text := e.Message
	if strings.Contains(text, "the attribute `version` is obsolete") {
		return nil // said with its line by versions
	}
	if m := unset.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%s: variable %q is not set and stands for an empty text", h.uses(m[1]), m[1])
	}
	h.warn(text)
	return nil
}

// warn adds a warning once.
func (l *load) warn(text string) {
	if !slices.Contains(l.warnings, text) {
		l.warnings = append(l.warnings, text)
	}
}
