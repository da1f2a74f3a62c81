package blueprint

import (
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/source/document"
)

// hostLost reads what becomes of a service when its host is lost, for which the
// original had no key: there, nothing that wrote to data was replaced.
func (r *reader) hostLost(d *draft, s *model.Service) {
	if set, ok := d.settings[keyHostLost]; ok && !document.Null(set.value) {
		s.HostLost.Position = r.doc.At(set.node)
		s.HostLost.Then, _ = r.constant(set.value, set.path)
	}
	if set, ok := d.settings[keyFence]; ok && !document.Null(set.value) {
		if s.HostLost.Position.Line == 0 {
			s.HostLost.Position = r.doc.At(set.node)
		}
		text, ok := r.constant(set.value, set.path)
		if !ok {
			return
		}
		fence, err := time.ParseDuration(text)
		if err != nil || fence <= 0 {
			r.add(set.value, set.path, "such as 15s", "%q is no duration", text)
			return
		}
		s.HostLost.Fence = fence
	}
}
